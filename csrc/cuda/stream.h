// Launches of kernels, for every CUDA entry: the device and stream of a tensor, launches, and error checks.
// tests/host_cuda replaces this header by its own of the same name, which runs the kernels on the CPU.
#pragma once
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

// This function is only in libtorch_cuda. It is weak, so that the same .so also loads with a CPU-only torch.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index,
                                                                                   void** ret_stream);

namespace wtal {

inline bool on_cuda(const torch::stable::Tensor& tensor) { return tensor.is_cuda(); }

// Makes the device of the tensor the current device until the end of the scope.
struct DeviceGuard : torch::stable::accelerator::DeviceGuard {
  explicit DeviceGuard(const torch::stable::Tensor& tensor)
      : torch::stable::accelerator::DeviceGuard(tensor.get_device_index()) {}
};

inline cudaStream_t current_stream(const torch::stable::Tensor& tensor) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this torch was built without CUDA");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline void check_cuda(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

// Calls kernel<<<grid, threads, dynamic_shared, stream>>>(arguments...) and checks for errors, whose message
// has `what`. CUDA needs an attribute of the kernel for more than 48 KB of dynamic shared memory, which is
// set here.
template <class... Parameters, class... Arguments>
void launch(const char* what, void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t dynamic_shared,
            cudaStream_t stream, Arguments&&... arguments) {
  if (dynamic_shared > 48 * 1024) {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(dynamic_shared)),
               what);
  }
  kernel<<<grid, threads, dynamic_shared, stream>>>(static_cast<Parameters>(arguments)...);
  check_cuda(cudaGetLastError(), what);
}

}  // namespace wtal
