// The ops' schemas once more, under torch.ops.wtal_on_host, and the shim's settings.
#include <torch/csrc/stable/library.h>

#undef STABLE_TORCH_LIBRARY
#define STABLE_TORCH_LIBRARY(name, m) STABLE_TORCH_LIBRARY_FRAGMENT(wtal_on_host, m)
#include "library.cpp"

extern "C" __attribute__((visibility("default"))) void host_cuda_shuffle(uint64_t seed) {
  ::host_cuda::shuffle_seed = seed;
}
