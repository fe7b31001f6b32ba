// __half and __nv_bfloat16, their pairs, and the conversions: rounded to nearest, ties to even, once.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "host_cuda/vectors.h"

namespace host_cuda {

// kMantissa bits stored, kLowest the exponent of the smallest normal number, kInfinity its bits.
template <int kMantissa, int kLowest, uint16_t kInfinity>
struct SmallFloat {
  // From double, so that neither a float nor a double rounds twice.
  static uint16_t encode(double value) {
    const uint64_t bits = std::bit_cast<uint64_t>(value);
    const auto sign = static_cast<uint16_t>(bits >> 63 << 15);
    const int field = static_cast<int>(bits >> 52 & 0x7ff);
    const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
    if (field == 0x7ff) return fraction ? 0x7fff : static_cast<uint16_t>(sign | kInfinity);
    const int exponent = field - 1023;
    const int unit = exponent > kLowest ? exponent : kLowest;
    const int shift = 52 - kMantissa + (unit - exponent);
    if (field == 0 || shift > 54) return sign;
    const uint64_t significand = fraction | uint64_t{1} << 52;
    const uint64_t rest = significand & ((uint64_t{1} << shift) - 1), tie = uint64_t{1} << (shift - 1);
    uint64_t rounded = significand >> shift;
    rounded += rest > tie || (rest == tie && (rounded & 1));
    // A carry into the exponent, and from the subnormal numbers into the normal ones, comes out right by
    // itself.
    const uint64_t encoded = (static_cast<uint64_t>(unit - kLowest) << kMantissa) + rounded;
    return static_cast<uint16_t>(sign | (encoded < kInfinity ? encoded : kInfinity));
  }

  static float decode(uint16_t bits) {
    const uint32_t sign = static_cast<uint32_t>(bits >> 15) << 31, magnitude = bits & 0x7fff;
    if (magnitude >= kInfinity) {
      return std::bit_cast<float>(sign | 0x7f800000u | (magnitude - kInfinity) << (23 - kMantissa));
    }
    if (magnitude < (1u << kMantissa)) {
      const float value = std::ldexp(static_cast<float>(magnitude), kLowest - kMantissa);
      return sign ? -value : value;
    }
    return std::bit_cast<float>(
        sign | ((magnitude << (23 - kMantissa)) + (static_cast<uint32_t>(127 + kLowest - 1) << 23)));
  }
};
using HalfFormat = SmallFloat<10, -14, 0x7c00>;
using BFloat16Format = SmallFloat<7, -126, 0x7f80>;

}  // namespace host_cuda

#define HOST_CUDA_SMALL_FLOAT(name, Format)                                                             \
  struct name {                                                                                         \
    uint16_t bits;                                                                                      \
    name() = default;                                                                                   \
    template <class T>                                                                                  \
      requires std::is_arithmetic_v<T>                                                                  \
    name(T value) : bits(::host_cuda::Format::encode(static_cast<double>(value))) {}                    \
    operator float() const { return ::host_cuda::Format::decode(bits); }                                \
    static name from_bits(uint16_t bits) {                                                              \
      name value;                                                                                       \
      value.bits = bits;                                                                                \
      return value;                                                                                     \
    }                                                                                                   \
  };                                                                                                    \
  struct alignas(4) name##2 { name x, y; };                                                             \
  inline name operator+(name a, name b) { return float(a) + float(b); }                                 \
  inline name operator-(name a, name b) { return float(a) - float(b); }                                 \
  inline name operator*(name a, name b) { return float(a) * float(b); }                                 \
  inline name operator/(name a, name b) { return float(a) / float(b); }                                 \
  inline name operator-(name a) { return name::from_bits(a.bits ^ 0x8000); }                            \
  inline name& operator+=(name& a, name b) { return a = a + b; }                                        \
  inline name& operator-=(name& a, name b) { return a = a - b; }                                        \
  inline name& operator*=(name& a, name b) { return a = a * b; }                                        \
  inline bool operator==(name a, name b) { return float(a) == float(b); }                               \
  inline bool operator<(name a, name b) { return float(a) < float(b); }                                 \
  inline bool operator>(name a, name b) { return float(a) > float(b); }                                 \
  inline bool operator<=(name a, name b) { return float(a) <= float(b); }                               \
  inline bool operator>=(name a, name b) { return float(a) >= float(b); }                               \
  inline name __hadd(name a, name b) { return a + b; }                                                  \
  inline name __hsub(name a, name b) { return a - b; }                                                  \
  inline name __hmul(name a, name b) { return a * b; }                                                  \
  inline name __hfma(name a, name b, name c) { return std::fma(double(float(a)), float(b), float(c)); } \
  inline name##2 __hadd2(name##2 a, name##2 b) { return {a.x + b.x, a.y + b.y}; }                       \
  inline name##2 __hmul2(name##2 a, name##2 b) { return {a.x * b.x, a.y * b.y}; }                       \
  inline name##2 __hfma2(name##2 a, name##2 b, name##2 c) {                                             \
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};                                              \
  }                                                                                                     \
  inline float __low2float(name##2 v) { return v.x; }                                                   \
  inline float __high2float(name##2 v) { return v.y; }

HOST_CUDA_SMALL_FLOAT(__half, HalfFormat)
HOST_CUDA_SMALL_FLOAT(__nv_bfloat16, BFloat16Format)
#undef HOST_CUDA_SMALL_FLOAT
using half = __half;
using half2 = __half2;
using nv_bfloat16 = __nv_bfloat16;

inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline __half __double2half(double x) { return x; }
inline float __half2float(__half x) { return x; }
inline __half2 __half2half2(__half x) { return {x, x}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __float2half2_rn(float x) { return {x, x}; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __float22half2_rn(float2 v) { return {v.x, v.y}; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }
inline __half __low2half(__half2 v) { return v.x; }
inline __half __high2half(__half2 v) { return v.y; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(unsigned short bits) { return __half::from_bits(bits); }

inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline __nv_bfloat16 __double2bfloat16(double x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 x) { return {x, x}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {v.x, v.y}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v) { return v.x; }
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v) { return v.y; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16::from_bits(bits); }
