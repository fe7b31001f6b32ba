// Bit masks of the scores above a threshold: 64 snippets per word. Compiled for each level of x86 vectors and
// selected at run time.
#pragma once
#include <cstdint>

#include "cpu/vector_level.h"

#ifdef WTAL_X86_LEVELS
#include <immintrin.h>
#endif

namespace wtal {

// Bit t % 64 of words[t / 64] is scores[t] > threshold, for t < 64 * count; NaN is above no threshold.
template <class T>
using MasksAbove = void (*)(const T* scores, int64_t count, T threshold, uint64_t* words);

template <class T>
void masks_above_baseline(const T* scores, int64_t count, T threshold, uint64_t* words) {
  for (int64_t w = 0; w < count; ++w) {
    uint64_t word = 0;
    for (int bit = 0; bit < 64; ++bit) word |= static_cast<uint64_t>(scores[64 * w + bit] > threshold) << bit;
    words[w] = word;
  }
}

#ifdef WTAL_X86_LEVELS
[[gnu::target("avx2")]] inline void masks_above_avx2(const float* scores, int64_t count, float threshold,
                                                     uint64_t* words) {
  const __m256 limit = _mm256_set1_ps(threshold);
  for (int64_t w = 0; w < count; ++w) {
    uint64_t word = 0;
    for (int part = 0; part < 8; ++part) {
      const __m256 above = _mm256_cmp_ps(_mm256_loadu_ps(scores + 64 * w + 8 * part), limit, _CMP_GT_OQ);
      word |= static_cast<uint64_t>(static_cast<unsigned>(_mm256_movemask_ps(above))) << (8 * part);
    }
    words[w] = word;
  }
}

[[gnu::target("avx2")]] inline void masks_above_avx2(const double* scores, int64_t count, double threshold,
                                                     uint64_t* words) {
  const __m256d limit = _mm256_set1_pd(threshold);
  for (int64_t w = 0; w < count; ++w) {
    uint64_t word = 0;
    for (int part = 0; part < 16; ++part) {
      const __m256d above = _mm256_cmp_pd(_mm256_loadu_pd(scores + 64 * w + 4 * part), limit, _CMP_GT_OQ);
      word |= static_cast<uint64_t>(static_cast<unsigned>(_mm256_movemask_pd(above))) << (4 * part);
    }
    words[w] = word;
  }
}

[[gnu::target("avx512f")]] inline void masks_above_avx512(const float* scores, int64_t count, float threshold,
                                                          uint64_t* words) {
  const __m512 limit = _mm512_set1_ps(threshold);
  for (int64_t w = 0; w < count; ++w) {
    uint64_t word = 0;
    for (int part = 0; part < 4; ++part) {
      const __mmask16 above =
          _mm512_cmp_ps_mask(_mm512_loadu_ps(scores + 64 * w + 16 * part), limit, _CMP_GT_OQ);
      word |= static_cast<uint64_t>(above) << (16 * part);
    }
    words[w] = word;
  }
}

[[gnu::target("avx512f")]] inline void masks_above_avx512(const double* scores, int64_t count,
                                                          double threshold, uint64_t* words) {
  const __m512d limit = _mm512_set1_pd(threshold);
  for (int64_t w = 0; w < count; ++w) {
    uint64_t word = 0;
    for (int part = 0; part < 8; ++part) {
      const __mmask8 above =
          _mm512_cmp_pd_mask(_mm512_loadu_pd(scores + 64 * w + 8 * part), limit, _CMP_GT_OQ);
      word |= static_cast<uint64_t>(above) << (8 * part);
    }
    words[w] = word;
  }
}
#endif

// The version for this machine.
template <class T>
MasksAbove<T> widest_masks_above() {
#ifdef WTAL_X86_LEVELS
  if (vector_level() == VectorLevel::kAvx512) return &masks_above_avx512;
  if (vector_level() == VectorLevel::kAvx2) return &masks_above_avx2;
#endif
  return &masks_above_baseline<T>;
}

}  // namespace wtal
