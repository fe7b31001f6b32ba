// An exp with the same bits on every device. The exp functions of libm and CUDA differ in the last place, and
// such a difference can change the order of two almost equal scores. This exp uses multiplications and
// additions in a fixed order, so a file that includes it must be compiled without contraction
// (-ffp-contract=off, -fmad=false).
#pragma once
#include <cstdint>
#include <cstring>

#include "common/host_device.h"

namespace wtal {

// The constants of each precision. ln 2 is split so that k * kLn2High is exact for every k that occurs.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  using Bits = int32_t;
  static constexpr int kDegree = 7;  // r^8 / 8! < 2^-27 for |r| <= ln(2) / 2
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kLog2e = 0x1.715476p+0f;
  static constexpr float kLn2High = 0x1.62ep-1f, kLn2Low = 0x1.0bfbe8p-15f;
  static constexpr float kLowest = -104.0f;  // at this value and below, exp rounds to zero
};

template <>
struct ExpConstants<double> {
  using Bits = int64_t;
  static constexpr int kDegree = 13;  // r^14 / 14! < 2^-57
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kLog2e = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kLowest = -746.0;
};

// 2^power, if it is a normal number.
template <class T>
WTAL_HOST_DEVICE inline T power_of_two(int power) {
  using Constants = ExpConstants<T>;
  const auto bits = static_cast<typename Constants::Bits>(power + Constants::kBias) << Constants::kMantissa;
  T value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

WTAL_HOST_DEVICE constexpr double factorial(int n) { return n < 2 ? 1.0 : n * factorial(n - 1); }

// 1/i! + r (1/(i+1)! + ... + r (1/n!)), each 1/i! rounded once.
template <class T, int i>
WTAL_HOST_DEVICE inline T exp_polynomial(T r) {
  constexpr T kInverseFactorial = T(1) / static_cast<T>(factorial(i));
  if constexpr (i == ExpConstants<T>::kDegree) {
    return kInverseFactorial;
  } else {
    return exp_polynomial<T, i + 1>(r) * r + kInverseFactorial;
  }
}

// exp(x) for x <= 0, within about one unit in the last place, at most 1; exp(-inf) = 0. It has no branch, so
// that compilers vectorise it: at kLowest the last multiplication rounds to zero.
//   k = round(x / ln 2), halves away from zero;  r = (x - k * ln2_high) - k * ln2_low
//   p = 1 + r (1/1! + r (1/2! + ... + r (1/n!)))
//   exp(x) = (p * 2^(k/2)) * 2^(k - k/2), k/2 truncated: subnormal results round once
template <class T>
WTAL_HOST_DEVICE inline T exp_nonpositive(T x) {
  using Constants = ExpConstants<T>;
  const T clipped = x < Constants::kLowest ? Constants::kLowest : x;
  const int k = static_cast<int>(clipped * Constants::kLog2e - T(0.5));
  const T r = (clipped - T(k) * Constants::kLn2High) - T(k) * Constants::kLn2Low;
  const T p = exp_polynomial<T, 0>(r);
  return (p * power_of_two<T>(k / 2)) * power_of_two<T>(k - k / 2);
}

}  // namespace wtal
