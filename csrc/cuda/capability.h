// Rejects a GPU that is too old for the kernels, with a clearer error than that of CUDA.
#pragma once
#include <cuda_runtime.h>
#include <torch/headeronly/util/Exception.h>

#include "cuda/stream.h"

namespace wtal {

constexpr int kOldestMajor = 8;  // bf16 tensor cores, cp.async: the A100 and the RTX 30 series

// Checks the current device; `op` is the op that the error names.
inline void check_capability(const char* op) {
  int device = 0, major = 0, minor = 0;
  check_cuda(cudaGetDevice(&device), op);
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), op);
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), op);
  STD_TORCH_CHECK(major >= kOldestMajor, op, ": the GPU cuda:", device, " has compute capability ", major,
                  ".", minor, ", expected ", kOldestMajor,
                  ".0 or newer (A100, RTX 30 series and later); on the CPU the op works as well");
}

}  // namespace wtal
