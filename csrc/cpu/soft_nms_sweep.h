// The inner loops of soft_nms on the CPU, compiled for each level of x86 vectors and selected at run time.
// Every lane does the operations of common/soft_nms_decay.h in the same order, so that the results are
// bitwise equal for every level (all are compiled without contraction, see CMakeLists.txt).
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "common/soft_nms_decay.h"
#include "cpu/vector_level.h"

namespace wtal {

// The highest score of a block, or of all blocks, and the lowest index that has it.
template <class T>
struct Best {
  // As wide as a score, so that both have the same number of lanes.
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  static constexpr Index kNone = std::numeric_limits<Index>::max();
  T score;
  Index index;
};

template <class T>
using Index = typename Best<T>::Index;

// Sweeps process whole lines, summaries whole blocks.
constexpr int64_t kLine = 16, kBlock = 64;

// 1 / sigma if multiplication by it is bitwise equal to division by sigma (sigma is a power of two, such as
// the usual 0.5); else 0. This avoids a division in every decay.
template <class T>
inline T exact_inverse(T sigma) {
  int exponent;
  const T inverse = T(1) / sigma;
  return std::frexp(sigma, &exponent) == T(0.5) && std::isnormal(inverse) ? inverse : T(0);
}

namespace sweep_body {

// Whether any segment in the line is not removed and overlaps `taken`: the other segments keep their scores.
template <class T>
[[gnu::always_inline]] inline bool reached(const Interval<T>& taken, const T* __restrict__ start,
                                           const T* __restrict__ end, const T* __restrict__ score) {
  const T left = taken.start, right = taken.end;
  Index<T> any = 0;
#pragma omp simd reduction(| : any)
  for (int64_t i = 0; i < kLine; ++i) {
    any |= Index<T>((start[i] < right) & (end[i] > left) & (score[i] > Suppression<T>::kDropped));
  }
  return any != 0;
}

template <SuppressionMethod kMethod, bool kInverse, class T>
[[gnu::always_inline]] inline bool decay(const Suppression<T>& rule, T inverse, const Interval<T>& taken,
                                         const T* __restrict__ start, const T* __restrict__ end,
                                         T* __restrict__ score, int64_t count) {
  const Suppression<T> fixed{kMethod, rule.sigma, rule.iou_threshold, rule.min_score};
  const Interval<T> best = taken;
  bool changed = false;
  for (int64_t line = 0; line < count; line += kLine) {
    if (!reached(best, start + line, end + line, score + line)) continue;
    changed = true;
    for (int64_t i = line; i < line + kLine; ++i) {
      const T overlap = tiou(best, make_interval(start[i], end[i]));
      score[i] = fixed.template decay<kInverse>(score[i], overlap, inverse);
    }
  }
  return changed;
}

template <class T>
[[gnu::always_inline]] inline bool decay_all(const Suppression<T>& rule, T inverse, const Interval<T>& taken,
                                             const T* start, const T* end, T* score, int64_t count) {
  using enum SuppressionMethod;
  switch (rule.method) {
    case kHard:
      return decay<kHard, false>(rule, inverse, taken, start, end, score, count);
    case kLinear:
      return decay<kLinear, false>(rule, inverse, taken, start, end, score, count);
    default:
      return inverse > T(0) ? decay<kGaussian, true>(rule, inverse, taken, start, end, score, count)
                            : decay<kGaussian, false>(rule, inverse, taken, start, end, score, count);
  }
}

template <class T>
[[gnu::always_inline]] inline T highest_of(const T* __restrict__ score, int64_t count) {
  T highest = Suppression<T>::kDropped;
#pragma omp simd reduction(max : highest)
  for (int64_t i = 0; i < count; ++i) highest = score[i] > highest ? score[i] : highest;
  return highest;
}

template <class T>
[[gnu::always_inline]] inline Index<T> lowest_of(T wanted, const T* __restrict__ score,
                                                 const Index<T>* __restrict__ index, int64_t count) {
  Index<T> lowest = Best<T>::kNone;
#pragma omp simd reduction(min : lowest)
  for (int64_t i = 0; i < count; ++i) {
    const Index<T> candidate = score[i] == wanted ? index[i] : Best<T>::kNone;
    lowest = candidate < lowest ? candidate : lowest;
  }
  return lowest;
}

// The lowest row among those with the highest score, which is the next to take.
template <class T>
[[gnu::always_inline]] inline Best<T> select(const T* __restrict__ block_highest, int64_t blocks,
                                             const T* __restrict__ score, const Index<T>* __restrict__ row) {
  const T highest = highest_of(block_highest, blocks);
  Index<T> lowest = Best<T>::kNone;
  for (int64_t line = 0; line < blocks && highest != Suppression<T>::kDropped; line += kLine) {
    Index<T> any = 0;
#pragma omp simd reduction(| : any)
    for (int64_t i = 0; i < kLine; ++i) any |= Index<T>(block_highest[line + i] == highest);
    if (!any) continue;
    for (int64_t block = line; block < line + kLine; ++block) {
      if (block_highest[block] != highest) continue;
      lowest = std::min(lowest, lowest_of(highest, score + block * kBlock, row + block * kBlock, kBlock));
    }
  }
  return {highest, lowest};
}

}  // namespace sweep_body

// The loops of one level; all counts are multiples of kLine.
//   decay: updates the scores of `count` segments after `taken` is selected; returns whether any may have
//   changed. highest: the highest of `count` scores. select: the next row to take, given the highest score of
//   each block.
template <class T>
struct Sweep {
  bool (*decay)(const Suppression<T>&, T inverse, const Interval<T>& taken, const T* start, const T* end,
                T* score, int64_t count);
  T (*highest)(const T* score, int64_t count);
  Best<T> (*select)(const T* block_highest, int64_t blocks, const T* score, const Index<T>* row);
};

#define WTAL_DEFINE_SWEEP(name, attribute)                                                     \
  template <class T>                                                                           \
  attribute bool decay_##name(const Suppression<T>& rule, T inverse, const Interval<T>& taken, \
                              const T* start, const T* end, T* score, int64_t count) {         \
    return sweep_body::decay_all(rule, inverse, taken, start, end, score, count);              \
  }                                                                                            \
  template <class T>                                                                           \
  attribute T highest_##name(const T* score, int64_t count) {                                  \
    return sweep_body::highest_of(score, count);                                               \
  }                                                                                            \
  template <class T>                                                                           \
  attribute Best<T> select_##name(const T* block_highest, int64_t blocks, const T* score,      \
                                  const Index<T>* row) {                                       \
    return sweep_body::select(block_highest, blocks, score, row);                              \
  }                                                                                            \
  template <class T>                                                                           \
  constexpr Sweep<T> sweep_##name{&decay_##name<T>, &highest_##name<T>, &select_##name<T>};

WTAL_DEFINE_SWEEP(baseline, )
#ifdef WTAL_X86_LEVELS
WTAL_DEFINE_SWEEP(avx2, [[gnu::target("avx2")]])
WTAL_DEFINE_SWEEP(avx512, [[gnu::target("avx512f,avx512vl,avx512dq,avx512bw")]])
#endif
#undef WTAL_DEFINE_SWEEP

// The version for this machine.
template <class T>
const Sweep<T>& widest_sweep() {
#ifdef WTAL_X86_LEVELS
  if (vector_level() == VectorLevel::kAvx512) return sweep_avx512<T>;
  if (vector_level() == VectorLevel::kAvx2) return sweep_avx2<T>;
#endif
  return sweep_baseline<T>;
}

}  // namespace wtal
