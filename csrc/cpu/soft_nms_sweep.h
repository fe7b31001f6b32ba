// The inner loops of soft_nms on the CPU, compiled for each level of x86 vectors and chosen at run time.
// Every lane does the operations of common/suppression.h in their order, so that the choice changes no bit
// (no contraction in any of them, see CMakeLists.txt).
#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>

#include "common/suppression.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define WTAL_X86_LEVELS 1
#endif

namespace wtal {

// Lowest index of those with the highest score; of a block, or of all.
template <class T>
struct Best {
  // As wide as a score, so that both fill the same vectors.
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  static constexpr Index kNone = std::numeric_limits<Index>::max();
  T score;
  Index index;
};

template <class T>
using Index = typename Best<T>::Index;

// Sweeps work on whole lines, summaries on whole blocks.
constexpr int64_t kLine = 16, kBlock = 64;

namespace sweep_body {

template <SuppressionMethod kMethod, class T>
[[gnu::always_inline]] inline void decay(const Suppression<T>& rule, const Interval<T>& taken,
                                         const T* __restrict__ start, const T* __restrict__ end,
                                         T* __restrict__ score, int64_t count) {
  const Suppression<T> fixed{kMethod, rule.sigma, rule.iou_threshold, rule.min_score};
  const Interval<T> best = taken;
  for (int64_t i = 0; i < count; ++i) {
    score[i] = fixed.decay(score[i], tiou(best, make_interval(start[i], end[i])));
  }
}

template <class T>
[[gnu::always_inline]] inline void decay_all(const Suppression<T>& rule, const Interval<T>& taken,
                                             const T* start, const T* end, T* score, int64_t count) {
  switch (rule.method) {
    case SuppressionMethod::kHard:
      return decay<SuppressionMethod::kHard>(rule, taken, start, end, score, count);
    case SuppressionMethod::kLinear:
      return decay<SuppressionMethod::kLinear>(rule, taken, start, end, score, count);
    case SuppressionMethod::kGaussian:
      return decay<SuppressionMethod::kGaussian>(rule, taken, start, end, score, count);
  }
}

template <class T>
[[gnu::always_inline]] inline Best<T> best_of(const T* __restrict__ score, const Index<T>* __restrict__ index,
                                              int64_t count) {
  T highest = Suppression<T>::kDropped;
#pragma omp simd reduction(max : highest)
  for (int64_t i = 0; i < count; ++i) highest = score[i] > highest ? score[i] : highest;
  Index<T> first = Best<T>::kNone;
#pragma omp simd reduction(min : first)
  for (int64_t i = 0; i < count; ++i) {
    const Index<T> candidate = score[i] == highest ? index[i] : Best<T>::kNone;
    first = candidate < first ? candidate : first;
  }
  return {highest, first};
}

}  // namespace sweep_body

// One level's loops. decay: what all of `count` segments are left with once `taken` is selected. best_of:
// which of `count` scores comes next. Both want count % kLine == 0.
template <class T>
struct Sweep {
  void (*decay)(const Suppression<T>&, const Interval<T>& taken, const T* start, const T* end, T* score,
                int64_t count);
  Best<T> (*best_of)(const T* score, const Index<T>* index, int64_t count);
};

#define WTAL_DEFINE_SWEEP(name, attribute)                                                          \
  template <class T>                                                                                \
  attribute void decay_##name(const Suppression<T>& rule, const Interval<T>& taken, const T* start, \
                              const T* end, T* score, int64_t count) {                              \
    sweep_body::decay_all(rule, taken, start, end, score, count);                                   \
  }                                                                                                 \
  template <class T>                                                                                \
  attribute Best<T> best_of_##name(const T* score, const Index<T>* index, int64_t count) {          \
    return sweep_body::best_of<T>(score, index, count);                                             \
  }                                                                                                 \
  template <class T>                                                                                \
  constexpr Sweep<T> sweep_##name{&decay_##name<T>, &best_of_##name<T>};

WTAL_DEFINE_SWEEP(baseline, )
#ifdef WTAL_X86_LEVELS
WTAL_DEFINE_SWEEP(avx2, [[gnu::target("avx2")]])
WTAL_DEFINE_SWEEP(avx512, [[gnu::target("avx512f,avx512vl,avx512dq,avx512bw")]])
#endif
#undef WTAL_DEFINE_SWEEP

// The widest that this machine has.
template <class T>
const Sweep<T>& widest_sweep() {
#ifdef WTAL_X86_LEVELS
  static const Sweep<T>& chosen = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                                          __builtin_cpu_supports("avx512dq") &&
                                          __builtin_cpu_supports("avx512bw")
                                      ? sweep_avx512<T>
                                      : (__builtin_cpu_supports("avx2") ? sweep_avx2<T> : sweep_baseline<T>);
  return chosen;
#else
  return sweep_baseline<T>;
#endif
}

}  // namespace wtal
