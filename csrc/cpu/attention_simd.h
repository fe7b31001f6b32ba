// The building blocks of temporal_attention's tiles on one CPU core: vectors, exp2, a transpose, and the
// product
//   C[r, lane] (+)= sum_n A[r, n] * B[n, lane].
// The product is computed in blocks, so that a block of C stays in registers. The template parameter kBytes
// is the vector width, which temporal_attention.cpp selects. Vectors are passed by reference, because
// baseline x86-64 has no calling convention for 64-byte vectors by value.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "cpu/inline.h"

namespace wtal::attention {

template <class T, int kBytes>
struct Simd;
#define WTAL_SIMD(type, integer, bytes)                                                                    \
  template <>                                                                                              \
  struct Simd<type, bytes> {                                                                               \
    static constexpr int kLanes = bytes / sizeof(type);                                                    \
    typedef type vec __attribute__((vector_size(bytes)));                                                  \
    typedef integer bits __attribute__((vector_size(bytes)));                                              \
    typedef type loose __attribute__((vector_size(bytes), aligned(sizeof(type)), may_alias)); /* memory */ \
  };
WTAL_SIMD(float, int32_t, 16)
WTAL_SIMD(float, int32_t, 32)
WTAL_SIMD(float, int32_t, 64)
WTAL_SIMD(double, int64_t, 16)
WTAL_SIMD(double, int64_t, 32)
WTAL_SIMD(double, int64_t, 64)
#undef WTAL_SIMD

template <class T, int kBytes>
WTAL_INLINE const typename Simd<T, kBytes>::loose& lanes_at(const T* row) {
  return *reinterpret_cast<const typename Simd<T, kBytes>::loose*>(row);
}
template <class T, int kBytes>
WTAL_INLINE typename Simd<T, kBytes>::loose& lanes_at(T* row) {
  return *reinterpret_cast<typename Simd<T, kBytes>::loose*>(row);
}

// ---- 2^x ----
template <class T>
struct Exp2Constants;
template <>
struct Exp2Constants<float> {  // interpolates 2^r at the Chebyshev nodes of [-1/2, 1/2], relative error 2e-8
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kLowest = -126.f, kRound = 0x1.8p23f;
  static constexpr std::array<float, 7> kSeries = {
      0x1p+0f, 0x1.62e43p-1f, 0x1.ebfbep-3f, 0x1.c6aeccp-5f, 0x1.3b2a1cp-7f, 0x1.5f48cp-10f, 0x1.444p-13f};
};
template <>
struct Exp2Constants<double> {  // the Taylor series: (ln 2)^i / i!, the next term is below 1e-17
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kLowest = -1022., kRound = 0x1.8p52;
  static constexpr std::array<double, 14> kSeries = [] {
    std::array<double, 14> terms{1};
    for (int i = 1; i < 14; ++i) terms[i] = terms[i - 1] * 0.69314718055994530942 / i;
    return terms;
  }();
};

// x <- 2^x for x up to slightly above 0; 0 below the normal range, NaN stays NaN. 2^x = 2^n 2^r with n the
// nearest integer. Adding kRound moves n to the low bits.
template <class T, int kBytes>
WTAL_INLINE void exp2(typename Simd<T, kBytes>::vec& x) {
  using C = Exp2Constants<T>;
  using vec = typename Simd<T, kBytes>::vec;
  using bits = typename Simd<T, kBytes>::bits;
  const vec shifted = x + C::kRound;
  const vec r = x - (shifted - C::kRound);
  constexpr int kDegree = C::kSeries.size() - 1;
  vec series = r * C::kSeries[kDegree] + C::kSeries[kDegree - 1];
#pragma GCC unroll 16
  for (int i = kDegree - 2; i >= 0; --i) series = series * r + C::kSeries[i];
  const vec power = (vec)(((bits)shifted + C::kBias) << C::kMantissa);
  x = x < C::kLowest ? vec{} : series * power;
}

// ---- transpose ----
template <class T, int kBytes, int kStep, int... kLane>
WTAL_INLINE void exchange(typename Simd<T, kBytes>::vec& a, typename Simd<T, kBytes>::vec& b,
                          std::integer_sequence<int, kLane...>) {
  using bits = typename Simd<T, kBytes>::bits;
  constexpr int kLanes = sizeof...(kLane);
  const auto low = __builtin_shuffle(a, b, bits{(kLane & kStep ? kLane - kStep + kLanes : kLane)...});
  b = __builtin_shuffle(a, b, bits{(kLane & kStep ? kLane + kLanes : kLane + kStep)...});
  a = low;
}

template <class T, int kBytes, int kStep = 1>
WTAL_INLINE void transpose(typename Simd<T, kBytes>::vec* rows) {
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (!(i & kStep)) {
      exchange<T, kBytes, kStep>(rows[i], rows[i + kStep], std::make_integer_sequence<int, kLanes>{});
    }
  }
  if constexpr (2 * kStep < kLanes) transpose<T, kBytes, 2 * kStep>(rows);
}

// ---- the product ----
// A block of C in registers. kAcross: A[r, n] is at a[r * a_row + n]; otherwise it is at a[n * a_row + r].
template <class T, int kBytes, int kRows, int kVecs, bool kAcross>
WTAL_INLINE void multiply_block(T* c, int64_t c_row, const T* a, int64_t a_row, const T* b, int64_t b_row,
                                int64_t begin, int64_t end, bool add) {
  using vec = typename Simd<T, kBytes>::vec;
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  vec sum[kRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int u = 0; u < kVecs; ++u) {
      sum[r][u] = add ? (vec)lanes_at<T, kBytes>(c + r * c_row + u * kLanes) : vec{};
    }
  }
  const T* row = b + begin * b_row;
  for (int64_t n = begin; n < end; ++n, row += b_row) {
    vec from[kVecs];
#pragma GCC unroll 4
    for (int u = 0; u < kVecs; ++u) from[u] = lanes_at<T, kBytes>(row + u * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const T factor = kAcross ? a[r * a_row + n] : a[n * a_row + r];
#pragma GCC unroll 4
      for (int u = 0; u < kVecs; ++u) sum[r][u] += factor * from[u];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int u = 0; u < kVecs; ++u) lanes_at<T, kBytes>(c + r * c_row + u * kLanes) = sum[r][u];
  }
}

// The window: row r of C (or of A) and index n see each other if |r + shift - n| <= window.
struct Band {
  int64_t shift, window;
  // The range of n, within 0 .. size, that any of the rows r .. r + count sees.
  WTAL_INLINE int64_t begin(int64_t r) const { return std::max<int64_t>(0, r + shift - window); }
  WTAL_INLINE int64_t end(int64_t r, int64_t count, int64_t size) const {
    return std::min(size, r + count + shift + window);
  }
};

// C[r, lane] (+)= sum over all n that r sees. The lanes of C and B are the head dimension.
template <class T, int kBytes, int kRows, int kVecs, bool kAcross>
WTAL_INLINE void collect_rows(int64_t& r, T* c, int64_t c_row, const T* a, int64_t a_row, const T* b,
                              int64_t b_row, int64_t rows, int64_t depth, bool add, const Band& band) {
  for (; r + kRows <= rows; r += kRows) {
    multiply_block<T, kBytes, kRows, kVecs, kAcross>(c + r * c_row, c_row, a + (kAcross ? r * a_row : r),
                                                     a_row, b, b_row, band.begin(r),
                                                     band.end(r, kRows, depth), add);
  }
}

template <class T, int kBytes, bool kAcross>
WTAL_INLINE void collect(T* c, int64_t c_row, const T* a, int64_t a_row, const T* b, int64_t b_row,
                         int64_t rows, int64_t width, int64_t depth, bool add, const Band& band) {
  constexpr int kLanes = Simd<T, kBytes>::kLanes, kRows = kBytes == 64 ? 8 : 4;
  int64_t lane = 0;
  for (; lane + 2 * kLanes <= width; lane += 2 * kLanes) {
    int64_t r = 0;
    collect_rows<T, kBytes, kRows, 2, kAcross>(r, c + lane, c_row, a, a_row, b + lane, b_row, rows, depth,
                                               add, band);
    collect_rows<T, kBytes, 2, 2, kAcross>(r, c + lane, c_row, a, a_row, b + lane, b_row, rows, depth, add,
                                           band);
    collect_rows<T, kBytes, 1, 2, kAcross>(r, c + lane, c_row, a, a_row, b + lane, b_row, rows, depth, add,
                                           band);
  }
  if (lane < width) {
    int64_t r = 0;
    collect_rows<T, kBytes, kRows, 1, kAcross>(r, c + lane, c_row, a, a_row, b + lane, b_row, rows, depth,
                                               add, band);
    collect_rows<T, kBytes, 1, 1, kAcross>(r, c + lane, c_row, a, a_row, b + lane, b_row, rows, depth, add,
                                           band);
  }
}

// C[r, lane] = sum_n A[r, n] * B[n, lane] for the lanes that row r sees, in whole vectors; other lanes do not
// change.
template <class T, int kBytes, int kRows>
WTAL_INLINE void score_rows(int64_t& r, T* c, const T* a, int64_t a_row, const T* b, int64_t lane,
                            int64_t lanes, int64_t rows, int64_t depth, const Band& band) {
  constexpr int kLanes = Simd<T, kBytes>::kLanes;
  for (; r + kRows <= rows; r += kRows) {
    const int64_t begin = band.begin(r), end = band.end(r, kRows, lanes), middle = lane + kLanes;
    const bool first = begin < middle && end > lane;
    const bool second = begin < middle + kLanes && end > middle && middle < lanes;
    const T* from = a + r * a_row;
    T* to = c + r * lanes + lane;
    if (first && second) {
      multiply_block<T, kBytes, kRows, 2, true>(to, lanes, from, a_row, b + lane, lanes, 0, depth, false);
    } else if (first) {
      multiply_block<T, kBytes, kRows, 1, true>(to, lanes, from, a_row, b + lane, lanes, 0, depth, false);
    } else if (second) {
      multiply_block<T, kBytes, kRows, 1, true>(to + kLanes, lanes, from, a_row, b + middle, lanes, 0, depth,
                                                false);
    }
  }
}

template <class T, int kBytes>
WTAL_INLINE void score(T* c, const T* a, int64_t a_row, const T* b, int64_t lanes, int64_t rows,
                       int64_t depth, const Band& band) {
  constexpr int kLanes = Simd<T, kBytes>::kLanes, kRows = kBytes == 64 ? 8 : 4;
  for (int64_t lane = 0; lane < lanes; lane += 2 * kLanes) {
    int64_t r = 0;
    score_rows<T, kBytes, kRows>(r, c, a, a_row, b, lane, lanes, rows, depth, band);
    score_rows<T, kBytes, 1>(r, c, a, a_row, b, lane, lanes, rows, depth, band);
  }
}

}  // namespace wtal::attention
