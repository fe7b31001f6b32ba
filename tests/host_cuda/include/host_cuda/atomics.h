// Atomic operations, for the types that CUDA has them for. Before each of them other threads may come in.
#pragma once
#include "host_cuda/block.h"
#include "host_cuda/warp.h"

namespace host_cuda {

template <class T, class... Ts>
concept OneOf = (std::is_same_v<T, Ts> || ...);

template <class T, class F>
T atomic(T* address, F&& change) {
  if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0) block.fail("an atomic on a misaligned address");
  block.pause();
  const T old = *address;
  *address = change(old);
  return old;
}

}  // namespace host_cuda

#define HOST_CUDA_ATOMIC(name, expression, ...)                                    \
  template <::host_cuda::OneOf<__VA_ARGS__> T>                                     \
  inline T name(T* address, std::type_identity_t<T> value) {                       \
    return ::host_cuda::atomic(address, [=](T old) -> T { return (expression); }); \
  }                                                                                \
  template <::host_cuda::OneOf<__VA_ARGS__> T>                                     \
  inline T name##_block(T* address, std::type_identity_t<T> value) {               \
    return name(address, value);                                                   \
  }

HOST_CUDA_ATOMIC(atomicAdd, old + value, unsigned, unsigned long long, float, double)
HOST_CUDA_ATOMIC(atomicAdd, ::host_cuda::Sum{}(old, value), int)
HOST_CUDA_ATOMIC(atomicSub, old - value, unsigned)
HOST_CUDA_ATOMIC(atomicExch, (void(old), value), int, unsigned, unsigned long long, float)
HOST_CUDA_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, unsigned long long, long long)
HOST_CUDA_ATOMIC(atomicMax, old < value ? value : old, int, unsigned, unsigned long long, long long)
HOST_CUDA_ATOMIC(atomicAnd, old& value, int, unsigned, unsigned long long)
HOST_CUDA_ATOMIC(atomicOr, old | value, int, unsigned, unsigned long long)
HOST_CUDA_ATOMIC(atomicXor, old ^ value, int, unsigned, unsigned long long)
HOST_CUDA_ATOMIC(atomicInc, old >= value ? 0 : old + 1, unsigned)
HOST_CUDA_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1, unsigned)
#undef HOST_CUDA_ATOMIC

template <::host_cuda::OneOf<int, unsigned, unsigned long long, unsigned short> T>
inline T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return ::host_cuda::atomic(address, [=](T old) { return old == compare ? value : old; });
}

inline void __threadfence_block() {}
inline void __threadfence() {}
