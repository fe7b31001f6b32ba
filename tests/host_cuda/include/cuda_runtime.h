// Stands in for the CUDA runtime: one stream, on which launches run at once, and copies to the host that
// arrive when the stream is waited for, and not before.
#pragma once
#include <vector>

#include "host_cuda.h"

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorNotReady = 600 };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };

namespace host_cuda {
inline std::vector<AsyncCopy> copies_to_host;
inline int capability = 86;  // which GPU the host plays
}  // namespace host_cuda

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const int capability = ::host_cuda::capability;
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? capability / 10 : capability % 10;
  return cudaSuccess;
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "not ready";
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                   cudaStream_t) {
  const ::host_cuda::AsyncCopy copy{static_cast<char*>(to), static_cast<const char*>(from), bytes, bytes};
  if (kind == cudaMemcpyDeviceToHost) {
    std::memset(to, ::host_cuda::kPoison, bytes);
    ::host_cuda::copies_to_host.push_back(copy);
  } else {
    copy.land();
  }
  return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  for (const auto& copy : ::host_cuda::copies_to_host) copy.land();
  ::host_cuda::copies_to_host.clear();
  return cudaSuccess;
}
