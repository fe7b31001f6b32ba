// Kernels of soft_nms: a warp or a block a group, which follows the sequential definition step by step.
// Groups of up to 10240 float32 or 4096 float64 rows stay in registers, larger ones in the L2 cache.
#pragma once
#include "common/nms_values.h"
#include "common/suppression.h"
#include "cuda/launch.cuh"

namespace wtal {

constexpr int kNmsThreads = 512, kNmsWarps = kNmsThreads / kWarpSize;

// See suppress_kernel.
WTAL_HOST_DEVICE inline int64_t nms_work_items(int64_t groups) {
  return groups + (groups + kNmsWarps - 1) / kNmsWarps;
}

// faults: the first position each in offsets, segments and scores that breaks a rule; kNoFault before.
template <class T>
__global__ void __launch_bounds__(kNmsThreads)
    check_values_kernel(const T* __restrict__ segments, const T* __restrict__ scores,
                        const int64_t* __restrict__ offsets, int64_t count, int64_t groups,
                        long long* __restrict__ faults) {
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

// A team shares a group: a warp a small one, a block a large one. first() gives every thread the first of all
// threads' candidates; all threads of the team call it.
struct WarpTeam {
  static constexpr int kSize = kWarpSize;

  __device__ int rank() const { return static_cast<int>(threadIdx.x) % kWarpSize; }

  template <class T>
  __device__ Candidate<T> first(Candidate<T> mine) const {
    for (int step = kWarpSize / 2; step > 0; step /= 2) {
      const T score = __shfl_xor_sync(kWholeWarp, mine.score, step);
      const int64_t index = __shfl_xor_sync(kWholeWarp, mine.index, step);
      const Candidate<T> other{score, index};
      if (other.before(mine)) mine = other;
    }
    return mine;
  }
};

struct BlockTeam {
  static constexpr int kSize = kNmsThreads;

  __device__ int rank() const { return static_cast<int>(threadIdx.x); }

  template <class T>
  __device__ Candidate<T> first(Candidate<T> mine) const {
    __shared__ T warp_score[kNmsWarps];
    __shared__ int64_t warp_index[kNmsWarps];
    mine = WarpTeam{}.first(mine);
    if (threadIdx.x % kWarpSize == 0) {
      warp_score[threadIdx.x / kWarpSize] = mine.score;
      warp_index[threadIdx.x / kWarpSize] = mine.index;
    }
    __syncthreads();
    for (int warp = 0; warp < kNmsWarps; ++warp) {
      const Candidate<T> other{warp_score[warp], warp_index[warp]};
      if (other.before(mine)) mine = other;
    }
    __syncthreads();  // all have read what the next call overwrites
    return mine;
  }
};

// What one group needs. Rows [begin, end); what is kept goes to `begin` on.
template <class T>
struct NmsGroup {
  const T *segments, *scores;
  int64_t begin, end, limit;
  int64_t* keep;
  T* kept_scores;

  __device__ Interval<T> interval(int64_t i) const {
    return make_interval(segments[2 * i], segments[2 * i + 1]);
  }
};

// The sequential definition with kRows rows of the group in the registers of each thread. Decay and the
// search for the next to take are one pass. Returns how many were taken.
template <class T, int kRows, class Team>
__device__ inline int64_t suppress_registers(const NmsGroup<T>& group, const Suppression<T>& rule,
                                             Team team) {
  Interval<T> own[kRows];
  T running[kRows];
  Candidate<T> mine{rule.kDropped, group.end};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t i = group.begin + team.rank() + r * Team::kSize;
    const bool there = i < group.end;
    running[r] = there ? rule.admit(group.scores[i]) : rule.kDropped;
    own[r] = there ? group.interval(i) : make_interval(T(0), T(0));
    const Candidate<T> other{running[r], i};
    if (other.before(mine)) mine = other;
  }
  for (int64_t selected = 0; selected < group.limit; ++selected) {
    const Candidate<T> best = team.first(mine);
    if (best.score == rule.kDropped) return selected;
    if (team.rank() == 0) {
      group.keep[group.begin + selected] = best.index;
      group.kept_scores[group.begin + selected] = best.score;
    }
    const Interval<T> taken = group.interval(best.index);
    mine = {rule.kDropped, group.end};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t i = group.begin + team.rank() + r * Team::kSize;
      if (i == best.index) running[r] = rule.kDropped;
      if (running[r] == rule.kDropped) continue;
      running[r] = rule.after(running[r], taken, own[r]);
      const Candidate<T> other{running[r], i};
      if (other.before(mine)) mine = other;
    }
  }
  return group.limit;
}

// The same for a group of any size, with the running scores in memory: running [N], a thread looks at its own
// only.
template <class T>
__device__ inline int64_t suppress_memory(const NmsGroup<T>& group, const Suppression<T>& rule, T* running) {
  const BlockTeam team;
  Candidate<T> mine{rule.kDropped, group.end};
  for (int64_t i = group.begin + team.rank(); i < group.end; i += BlockTeam::kSize) {
    running[i] = rule.admit(group.scores[i]);
    const Candidate<T> other{running[i], i};
    if (other.before(mine)) mine = other;
  }
  for (int64_t selected = 0; selected < group.limit; ++selected) {
    const Candidate<T> best = team.first(mine);
    if (best.score == rule.kDropped) return selected;
    if (team.rank() == 0) {
      group.keep[group.begin + selected] = best.index;
      group.kept_scores[group.begin + selected] = best.score;
    }
    const Interval<T> taken = group.interval(best.index);
    mine = {rule.kDropped, group.end};
    for (int64_t i = group.begin + team.rank(); i < group.end; i += BlockTeam::kSize) {
      const T before = i == best.index ? rule.kDropped : running[i];
      const T score = before == rule.kDropped ? before : rule.after(before, taken, group.interval(i));
      if (score != running[i]) running[i] = score;
      const Candidate<T> other{score, i};
      if (other.before(mine)) mine = other;
    }
  }
  return group.limit;
}

// Rows a thread: what fits in 128 registers beside the arithmetic.
template <class T>
constexpr int kMostRows = sizeof(T) == 4 ? 20 : 8;
constexpr int kFewRows = 4, kWarpRows = 8;
constexpr int64_t kWarpGroup = kWarpRows * kWarpSize;

// Writes the rows kept of group g from offsets[g] on, and how many to counts[g]. Faulty input: none. One
// launch for groups of all sizes: work item g < groups is group g if it is a block's, item groups + i are
// those of groups i * kNmsWarps and on that are a warp's. running [N] is scratch.
template <class T>
__global__ void __launch_bounds__(kNmsThreads)
    suppress_kernel(const T* __restrict__ segments, const T* __restrict__ scores,
                    const int64_t* __restrict__ offsets, int64_t groups, Suppression<T> rule, int64_t limit,
                    const long long* __restrict__ faults, T* __restrict__ running, int64_t* __restrict__ keep,
                    T* __restrict__ kept_scores, int64_t* __restrict__ counts) {
  const bool fine = faults[0] == kNoFault && faults[1] == kNoFault && faults[2] == kNoFault;
  for (int64_t item = blockIdx.x; item < nms_work_items(groups); item += gridDim.x) {
    const bool by_warp = item >= groups;
    const int64_t g = by_warp ? (item - groups) * kNmsWarps + threadIdx.x / kWarpSize : item;
    if (g >= groups) continue;
    const int64_t begin = fine ? offsets[g] : 0, end = fine ? offsets[g + 1] : 0, size = end - begin;
    if (by_warp != (size <= kWarpGroup)) continue;
    const NmsGroup<T> group{segments, scores, begin, end, limit, keep, kept_scores};
    int64_t selected;
    if (by_warp) {
      selected = suppress_registers<T, kWarpRows>(group, rule, WarpTeam{});
    } else if (size <= kFewRows * kNmsThreads) {
      selected = suppress_registers<T, kFewRows>(group, rule, BlockTeam{});
    } else if (size <= kMostRows<T> * kNmsThreads) {
      selected = suppress_registers<T, kMostRows<T>>(group, rule, BlockTeam{});
    } else {
      selected = suppress_memory(group, rule, running);
    }
    if ((by_warp ? WarpTeam{}.rank() : BlockTeam{}.rank()) == 0) counts[g] = selected;
  }
}

// Moves what suppress_kernel kept to rows[g] on.
template <class T>
__global__ void __launch_bounds__(kNmsThreads)
    compact_kernel(const int64_t* __restrict__ offsets, const int64_t* __restrict__ rows, int64_t groups,
                   const int64_t* __restrict__ keep, const T* __restrict__ kept_scores,
                   int64_t* __restrict__ keep_out, T* __restrict__ scores_out) {
  for (int64_t g = blockIdx.x; g < groups; g += gridDim.x) {
    for (int64_t i = threadIdx.x; i < rows[g + 1] - rows[g]; i += blockDim.x) {
      keep_out[rows[g] + i] = keep[offsets[g] + i];
      scores_out[rows[g] + i] = kept_scores[offsets[g] + i];
    }
  }
}

}  // namespace wtal
