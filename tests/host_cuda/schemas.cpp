// The ops' schemas once more, under torch.ops.wtal_on_host (or what HOST_CUDA_OPS says), and the shim's
// settings.
#include "cuda/stream.h"

#undef STABLE_TORCH_LIBRARY
#define STABLE_TORCH_LIBRARY(name, m) STABLE_TORCH_LIBRARY_FRAGMENT(HOST_CUDA_OPS, m)
#include "library.cpp"

extern "C" __attribute__((visibility("default"))) void host_cuda_shuffle(uint64_t seed) {
  ::host_cuda::shuffle_seed = seed;
}
extern "C" __attribute__((visibility("default"))) void host_cuda_capability(int capability) {
  ::host_cuda::capability = capability;
}
