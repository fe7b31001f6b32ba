// Kernels of soft_nms: the check of the values, the sequential definition for groups whose rows stay in
// registers, and the joining of what was kept. Larger groups: soft_nms_tiles.cuh.
#pragma once
#include "cuda/soft_nms_group.cuh"
#include "cuda/soft_nms_team.cuh"

namespace wtal {

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

// Rows a thread has of a small group, which a warp takes, and of a medium one, which a block takes.
constexpr int kSmallRows = 8, kMediumRows = 4;
constexpr int64_t kSmallGroup = kSmallRows * WarpTeam::kSize, kMediumGroup = kMediumRows * BlockTeam::kSize;
constexpr int kSmallThreads = 128, kSmallWarps = kSmallThreads / kWarpSize;
template <class T>
constexpr int kSmallBlocks = sizeof(T) == 4 ? 6 : 3;  // an SM; left to itself ptxas spills

// Groups of up to kSmallGroup rows: a warp a group. Faulty input: nothing is kept, in any group.
template <class T>
__global__ void __launch_bounds__(kSmallThreads, kSmallBlocks<T>)
    suppress_small_kernel(NmsInput<T> input, NmsSettings<T> settings, const long long* __restrict__ faults,
                          NmsKept<T> kept) {
  const bool fine = no_fault(faults);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kSmallWarps;
  for (int64_t g = static_cast<int64_t>(blockIdx.x) * kSmallWarps + threadIdx.x / kWarpSize; g < input.groups;
       g += step) {
    const int64_t begin = fine ? input.offsets[g] : 0, end = fine ? input.offsets[g + 1] : 0;
    if (end - begin > kSmallGroup) continue;
    WarpTeam team;
    const int64_t selected =
        suppress_registers<T, kSmallRows>(NmsGroup<T>{input, kept, begin, end}, settings, team);
    if (team.rank() == 0) kept.counts[g] = selected;
  }
}

// Groups of more, up to kMediumGroup rows: a block a group.
template <class T>
__global__ void __launch_bounds__(kNmsThreads)
    suppress_medium_kernel(NmsInput<T> input, NmsSettings<T> settings, const long long* __restrict__ faults,
                           NmsKept<T> kept) {
  if (!no_fault(faults)) return;
  BlockTeam team;
  for (int64_t g = blockIdx.x; g < input.groups; g += gridDim.x) {
    const NmsGroup<T> group{input, kept, input.offsets[g], input.offsets[g + 1]};
    if (group.size() <= kSmallGroup || group.size() > kMediumGroup) continue;
    const int64_t selected = suppress_registers<T, kMediumRows>(group, settings, team);
    if (team.rank() == 0) kept.counts[g] = selected;
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
