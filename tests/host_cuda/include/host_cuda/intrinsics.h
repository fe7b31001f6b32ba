// Arithmetic that CUDA offers beyond <cmath>, and those of its functions that lie in the global namespace
// there.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

// ---- mixed minima and maxima, as CUDA overloads them
// ------------------------------------------------------------
template <class A, class B>
  requires(std::is_arithmetic_v<A> && std::is_arithmetic_v<B>)
inline constexpr std::common_type_t<A, B> min(A a, B b) {
  if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) {
    return std::fmin(a, b);
  } else {
    return static_cast<std::common_type_t<A, B>>(b) < static_cast<std::common_type_t<A, B>>(a) ? b : a;
  }
}
template <class A, class B>
  requires(std::is_arithmetic_v<A> && std::is_arithmetic_v<B>)
inline constexpr std::common_type_t<A, B> max(A a, B b) {
  if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) {
    return std::fmax(a, b);
  } else {
    return static_cast<std::common_type_t<A, B>>(a) < static_cast<std::common_type_t<A, B>>(b) ? b : a;
  }
}

// ---- float: fast forms give what the exact ones do, rounded once more or not
// -------------------------------------
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
// CUDA's fast exponentials and logarithms are some units off; here they are rounded as if they had 20 bits,
// so that a test which needs more than that fails here as well.
namespace host_cuda {
inline float coarse(float x) {
  if (!std::isfinite(x)) return x;
  return std::bit_cast<float>((std::bit_cast<uint32_t>(x) + 4u) & ~7u);
}
}  // namespace host_cuda
inline float __expf(float x) { return ::host_cuda::coarse(std::exp(x)); }
inline float __exp10f(float x) { return ::host_cuda::coarse(std::pow(10.0f, x)); }
inline float __logf(float x) { return ::host_cuda::coarse(std::log(x)); }
inline float __log2f(float x) { return ::host_cuda::coarse(std::log2(x)); }
inline float __fdividef(float a, float b) { return ::host_cuda::coarse(a / b); }
inline float __powf(float a, float b) { return ::host_cuda::coarse(std::pow(a, b)); }

// Each rounds once and is never contracted: volatile keeps the compiler from joining it to a neighbour.
#define HOST_CUDA_ROUNDED(name, T, op) \
  inline T name(T a, T b) {            \
    const volatile T result = a op b;  \
    return result;                     \
  }
HOST_CUDA_ROUNDED(__fadd_rn, float, +)
HOST_CUDA_ROUNDED(__fsub_rn, float, -)
HOST_CUDA_ROUNDED(__fmul_rn, float, *)
HOST_CUDA_ROUNDED(__fdiv_rn, float, /)
HOST_CUDA_ROUNDED(__dadd_rn, double, +)
HOST_CUDA_ROUNDED(__dsub_rn, double, -)
HOST_CUDA_ROUNDED(__dmul_rn, double, *)
HOST_CUDA_ROUNDED(__ddiv_rn, double, /)
#undef HOST_CUDA_ROUNDED
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __frcp_rn(float x) { return __fdiv_rn(1.0f, x); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }

// ---- bits
// -------------------------------------------------------------------------------------------------------
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1u) << (31 - i);
  return reversed;
}

template <class T>
inline T __ldg(const T* address) {
  return *address;
}
template <class T>
inline T __ldcs(const T* address) {
  return *address;
}
