// Stands in for csrc/cuda/stream.h: CPU tensors play the CUDA tensors, and the ops register themselves as
// torch.ops.wtal_on_host.*, with CPU kernels. tests/ptx gives them another name, and another launch.
#pragma once
#include <cuda_runtime.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#undef STABLE_TORCH_LIBRARY_IMPL
#define STABLE_TORCH_LIBRARY_IMPL(name, key, m) HOST_CUDA_LIBRARY_IMPL(HOST_CUDA_OPS, m)
#define HOST_CUDA_LIBRARY_IMPL(name, m) _STABLE_TORCH_LIBRARY_IMPL(name, CPU, m, C10_UID)
#ifndef HOST_CUDA_OPS
#define HOST_CUDA_OPS wtal_on_host
#define HOST_CUDA_LAUNCH ::host_cuda::launch
#endif

namespace wtal {

inline bool on_cuda(const torch::stable::Tensor& tensor) { return tensor.is_cpu(); }

struct DeviceGuard {
  explicit DeviceGuard(const torch::stable::Tensor&) {
    // Left over from a call that never waited, or that a fault ended.
    ::host_cuda::copies_to_host.clear();
  }
  ~DeviceGuard() {}
};

inline cudaStream_t current_stream(const torch::stable::Tensor&) { return nullptr; }

inline void check_cuda(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

template <class... Parameters, class... Arguments>
void launch(const char* what, void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t dynamic_shared,
            cudaStream_t, Arguments&&... arguments) {
  try {
    HOST_CUDA_LAUNCH(kernel, grid, threads, dynamic_shared, static_cast<Parameters>(arguments)...);
  } catch (const std::exception& error) {
    STD_TORCH_CHECK(false, what, ": ", error.what());
  }
}

}  // namespace wtal
