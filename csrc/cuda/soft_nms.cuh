// Kernels of soft_nms: a warp or a block a group, each of which follows the sequential definition step by
// step. Groups of up to 9728 float32 or 4096 float64 rows stay in registers, larger ones in the L2 cache.
#pragma once
#include <cstring>
#include <type_traits>

#include "common/nms_values.h"
#include "common/soft_nms_decay.h"
#include "cuda/launch.cuh"

namespace wtal {

constexpr int kNmsThreads = 512, kNmsWarps = kNmsThreads / kWarpSize;

// What is to be suppressed: group g has rows offsets[g] to offsets[g + 1].
template <class T>
struct NmsInput {
  const T* segments;       // [N, 2]
  const T* scores;         // [N]
  const int64_t* offsets;  // [G + 1]
  int64_t groups;          // G
};

// How: at most `limit` rows of each group are kept.
template <class T>
struct NmsSettings {
  Suppression<T> rule;
  int64_t limit;
};

// What is kept of each group, from offsets[g] on: rows in the order in which they are taken, their scores,
// and how many there are.
template <class T>
struct NmsKept {
  int64_t* rows;    // [N]
  T* scores;        // [N]
  int64_t* counts;  // [G]
};

// faults: the first position each in offsets, segments and scores that breaks a rule; kNoFault before.
template <class T>
__global__ void __launch_bounds__(kNmsThreads)
    check_values_kernel(NmsInput<T> input, int64_t count, long long* __restrict__ faults) {
  const auto [segments, scores, offsets, groups] = input;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t g = first; g <= groups; g += step) {
    if (!offset_is_fine(offsets, groups, count, g)) atomicMin(&faults[0], static_cast<long long>(g));
  }
  for (int64_t i = first; i < count; i += step) {
    if (!segment_is_fine(segments[2 * i], segments[2 * i + 1])) {
      atomicMin(&faults[1], static_cast<long long>(i));
    }
    if (!is_finite(scores[i])) atomicMin(&faults[2], static_cast<long long>(i));
  }
}

// A row in the running as numbers that are compared without a branch: the greater key is taken first, of
// equal ones the lower row. Rows are counted from the group's first. A key is one more than a score's bits,
// which rise with a score that is not negative; 0 is a row that is dropped.
template <class T>
struct Front {
  using Key = std::conditional_t<sizeof(T) == 4, uint32_t, unsigned long long>;
  static constexpr uint32_t kNoRow = 0xffffffffu;
  Key key = 0;
  uint32_t row = kNoRow;

  __device__ bool none() const { return key == 0; }

  __device__ static Key key_of(T score) {
    if (score == Suppression<T>::kDropped) return 0;
    score += T(0);  // -0 counts as 0
    Key bits;
    memcpy(&bits, &score, sizeof(bits));
    return bits + 1;
  }
  // Rows come in rising order: of equal ones the first stays.
  __device__ void see(T score, uint32_t at) {
    if (const Key other = key_of(score); other > key) *this = {other, at};
  }
};

__device__ inline uint32_t warp_greatest(uint32_t x) { return __reduce_max_sync(kWholeWarp, x); }
__device__ inline unsigned long long warp_greatest(unsigned long long x) {
  const auto high = static_cast<uint32_t>(x >> 32), top = warp_greatest(high);
  const uint32_t low = warp_greatest(high == top ? static_cast<uint32_t>(x) : 0u);
  return static_cast<unsigned long long>(top) << 32 | low;
}

// A team shares a group: a warp a small one, a block a large one. first() gives every thread the first of all
// threads' rows; all threads of the team call it.
struct WarpTeam {
  static constexpr int kSize = kWarpSize;

  __device__ int rank() const { return static_cast<int>(threadIdx.x) % kWarpSize; }

  template <class T>
  __device__ Front<T> first(Front<T> mine) {
    const auto key = warp_greatest(mine.key);
    return {key, __reduce_min_sync(kWholeWarp, mine.key == key ? mine.row : Front<T>::kNoRow)};
  }
};

struct BlockTeam {
  static constexpr int kSize = kNmsThreads;
  int turn = 0;

  __device__ int rank() const { return static_cast<int>(threadIdx.x); }

  // Of two places, which the calls use in turn: who is a call ahead writes to the other, and two calls ahead
  // nobody is.
  template <class T>
  __device__ Front<T> first(Front<T> mine) {
    __shared__ typename Front<T>::Key keys[2][kNmsWarps];
    __shared__ uint32_t rows[2][kNmsWarps];
    const int here = turn, lane = static_cast<int>(threadIdx.x) % kWarpSize;
    turn ^= 1;
    mine = WarpTeam{}.first(mine);
    if (lane == 0) {
      keys[here][threadIdx.x / kWarpSize] = mine.key;
      rows[here][threadIdx.x / kWarpSize] = mine.row;
    }
    __syncthreads();
    return WarpTeam{}.first(lane < kNmsWarps ? Front<T>{keys[here][lane], rows[here][lane]} : Front<T>{});
  }
};

// One group: rows [begin, end); what is kept goes to `begin` on.
template <class T>
struct NmsGroup {
  NmsInput<T> input;
  NmsKept<T> kept;
  int64_t begin, end;

  __device__ uint32_t size() const { return static_cast<uint32_t>(end - begin); }
  __device__ T score(uint32_t row) const { return input.scores[begin + row]; }
  __device__ Interval<T> interval(uint32_t row) const {
    const int64_t i = begin + row;
    return make_interval(input.segments[2 * i], input.segments[2 * i + 1]);
  }
  __device__ void take(int64_t selected, uint32_t row, T score) const {
    kept.rows[begin + selected] = begin + row;
    kept.scores[begin + selected] = score;
  }
};

// The sequential definition with kRows rows of the group in the registers of each thread. Decay and the
// search for the next to take are one pass. Returns how many were taken.
template <class T, int kRows, class Team>
__device__ inline int64_t suppress_registers(const NmsGroup<T>& group, const NmsSettings<T>& settings,
                                             Team& team) {
  const Suppression<T>& rule = settings.rule;
  Interval<T> own[kRows];
  T running[kRows];
  Front<T> mine;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const uint32_t row = team.rank() + r * Team::kSize;
    const bool there = row < group.size();
    running[r] = there ? rule.admit(group.score(row)) : rule.kDropped;
    own[r] = there ? group.interval(row) : make_interval(T(0), T(0));
    mine.see(running[r], row);
  }
  for (int64_t selected = 0; selected < settings.limit; ++selected) {
    const Front<T> best = team.first(mine);
    if (best.none()) return selected;
    const Interval<T> taken = group.interval(best.row);
    mine = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint32_t row = team.rank() + r * Team::kSize;
      if (row == best.row) {
        group.take(selected, row, running[r]);
        running[r] = rule.kDropped;
      }
      if (running[r] == rule.kDropped) continue;
      running[r] = rule.after(running[r], taken, own[r]);
      mine.see(running[r], row);
    }
  }
  return settings.limit;
}

// The same for a group of any size, with the running scores in memory: running [N], a thread looks at its own
// only.
template <class T>
__device__ inline int64_t suppress_memory(const NmsGroup<T>& group, const NmsSettings<T>& settings,
                                          T* running, BlockTeam& team) {
  const Suppression<T>& rule = settings.rule;
  Front<T> mine;
  running += group.begin;
  for (uint32_t row = team.rank(); row < group.size(); row += BlockTeam::kSize) {
    running[row] = rule.admit(group.score(row));
    mine.see(running[row], row);
  }
  for (int64_t selected = 0; selected < settings.limit; ++selected) {
    const Front<T> best = team.first(mine);
    if (best.none()) return selected;
    const Interval<T> taken = group.interval(best.row);
    mine = {};
    for (uint32_t row = team.rank(); row < group.size(); row += BlockTeam::kSize) {
      const T before = running[row];
      if (before == rule.kDropped) continue;
      T score = rule.kDropped;
      if (row == best.row) {
        group.take(selected, row, before);
      } else {
        score = rule.after(before, taken, group.interval(row));
      }
      if (score != before) running[row] = score;
      mine.see(score, row);
    }
  }
  return settings.limit;
}

// Rows a thread: what fits in 128 registers beside the arithmetic.
template <class T>
constexpr int kMostRows = sizeof(T) == 4 ? 19 : 8;
constexpr int kFewRows = 4, kWarpRows = 8;
constexpr int64_t kWarpGroup = kWarpRows * kWarpSize;
constexpr int kSmallThreads = 128, kSmallWarps = kSmallThreads / kWarpSize;
template <class T>
constexpr int kSmallBlocks = sizeof(T) == 4 ? 6 : 3;  // an SM; left to itself ptxas spills

__device__ inline bool no_fault(const long long* faults) {
  return faults[0] == kNoFault && faults[1] == kNoFault && faults[2] == kNoFault;
}

// Groups of up to kWarpGroup rows: a warp a group. Faulty input: nothing is kept, in any group.
template <class T>
__global__ void __launch_bounds__(kSmallThreads, kSmallBlocks<T>)
    suppress_small_kernel(NmsInput<T> input, NmsSettings<T> settings, const long long* __restrict__ faults,
                          NmsKept<T> kept) {
  const bool fine = no_fault(faults);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kSmallWarps;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kSmallWarps + threadIdx.x / kWarpSize; g < input.groups;
       g += step) {
    const int64_t begin = fine ? input.offsets[g] : 0, end = fine ? input.offsets[g + 1] : 0;
    if (end - begin > kWarpGroup) continue;
    WarpTeam team;
    const int64_t selected =
        suppress_registers<T, kWarpRows>(NmsGroup<T>{input, kept, begin, end}, settings, team);
    if (team.rank() == 0) kept.counts[g] = selected;
  }
}

// The same for the groups of more rows: a block a group. running [N] is scratch.
template <class T>
__global__ void __launch_bounds__(kNmsThreads)
    suppress_kernel(NmsInput<T> input, NmsSettings<T> settings, const long long* __restrict__ faults,
                    T* __restrict__ running, NmsKept<T> kept) {
  if (!no_fault(faults)) return;
  BlockTeam team;
  for (int64_t g = blockIdx.x; g < input.groups; g += gridDim.x) {
    const NmsGroup<T> group{input, kept, input.offsets[g], input.offsets[g + 1]};
    const int64_t size = group.end - group.begin;
    if (size <= kWarpGroup) continue;
    int64_t selected;
    if (size <= kFewRows * kNmsThreads) {
      selected = suppress_registers<T, kFewRows>(group, settings, team);
    } else if (size <= kMostRows<T> * kNmsThreads) {
      selected = suppress_registers<T, kMostRows<T>>(group, settings, team);
    } else {
      selected = suppress_memory(group, settings, running, team);
    }
    if (threadIdx.x == 0) kept.counts[g] = selected;
  }
}

// Moves what was kept of group g to rows[g] on.
template <class T>
__global__ void __launch_bounds__(kNmsThreads)
    compact_kernel(NmsInput<T> input, NmsKept<T> kept, const int64_t* __restrict__ rows,
                   int64_t* __restrict__ keep_out, T* __restrict__ scores_out) {
  for (int64_t g = blockIdx.x; g < input.groups; g += gridDim.x) {
    for (int64_t i = threadIdx.x; i < rows[g + 1] - rows[g]; i += blockDim.x) {
      keep_out[rows[g] + i] = kept.rows[input.offsets[g] + i];
      scores_out[rows[g] + i] = kept.scores[input.offsets[g] + i];
    }
  }
}

}  // namespace wtal
