// Kernels of group_proposals: one warp a column, and one a cell, which is one (video, class, threshold).
#pragma once
#include "common/proposal_rule.h"
#include "cuda/launch.cuh"

namespace wtal {

constexpr int kGroupingThreads = 128;
constexpr int kGroupingWarps = kGroupingThreads / kWarpSize;

// low, spread [B, C]: what rescaling takes of each column.
template <class T>
__global__ void __launch_bounds__(kGroupingThreads)
    column_ranges_kernel(Grouping<T> grouping, T* __restrict__ low, T* __restrict__ spread) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t columns = grouping.batch * grouping.classes;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kGroupingWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kGroupingWarps + threadIdx.x / kWarpSize; i < columns;
       i += step) {
    const Column<T> column = grouping.column(i / grouping.classes, i % grouping.classes);
    ScoreRange<T> range;
    for (int64_t t = lane; t < column.length; t += kWarpSize) range.add(column[t]);
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
      const T other_low = __shfl_xor_sync(kWholeWarp, range.low, offset);
      const T other_high = __shfl_xor_sync(kWholeWarp, range.high, offset);
      range.add(other_low, other_high);
    }
    if (lane == 0) {
      low[i] = range.low;
      spread[i] = range.spread();
    }
  }
}

// A warp walks over a column, 32 snippets at a time. Where runs end, `visit(run, is_proposal, before)` is
// called by all lanes: a lane whose run is a proposal has as many of this cell's proposals before it as
// `before` says.
template <class T, class Visit>
__device__ inline int64_t walk_cell(const Grouping<T>& grouping, const Column<T>& column, int64_t k,
                                    Visit visit) {
  const int lane = threadIdx.x % kWarpSize;
  const unsigned lanes_before = (1u << lane) - 1u;
  const T threshold = grouping.thresholds[k];
  int64_t found = 0, open = 0;  // open: where the run began that the last 32 left open
  unsigned last = 0;            // 1 if there is one
  for (int64_t first = 0; first <= column.length; first += kWarpSize) {  // one beyond ends the last run
    const int64_t t = first + lane;
    const unsigned above = __ballot_sync(kWholeWarp, column.above(t, threshold));
    const unsigned shifted = above << 1 | last;
    const unsigned starts = above & ~shifted, ends = ~above & shifted;
    const unsigned earlier = starts & lanes_before;
    const Run run{earlier != 0 ? first + 31 - __clz(static_cast<int>(earlier)) : open, t};
    const bool own = (ends >> lane & 1u) != 0 && t <= column.length && is_proposal(grouping, column, k, run);
    const unsigned proposals = __ballot_sync(kWholeWarp, own);
    if (proposals != 0) visit(run, proposals, found + __popc(proposals & lanes_before));
    found += __popc(proposals);
    if (starts != 0) open = first + 31 - __clz(static_cast<int>(starts));
    last = above >> 31;
  }
  return found;
}

template <class T>
__global__ void __launch_bounds__(kGroupingThreads)
    count_proposals_kernel(Grouping<T> grouping, int64_t* __restrict__ counts) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kGroupingWarps;
  for (int64_t cell = static_cast<int64_t>(blockIdx.x) * kGroupingWarps + threadIdx.x / kWarpSize;
       cell < grouping.cells(); cell += step) {
    const int64_t column = cell / grouping.levels;
    const int64_t found =
        walk_cell(grouping, grouping.column(column / grouping.classes, column % grouping.classes),
                  cell % grouping.levels, [](Run, unsigned, int64_t) {});
    if (threadIdx.x % kWarpSize == 0) counts[cell] = found;
  }
}

// Of one run, by all lanes of a warp.
template <class T>
__device__ inline T warp_maximum(const Column<T>& column, Run run) {
  T best = column[run.start];
  for (int64_t t = run.start + threadIdx.x % kWarpSize; t < run.end; t += kWarpSize) {
    const T score = column[t];
    best = score > best ? score : best;
  }
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kWholeWarp, best, offset);
    best = other > best ? other : best;
  }
  return best;
}

// rows [cells + 1]: where each cell's proposals begin, as counted.
template <class T>
__global__ void __launch_bounds__(kGroupingThreads)
    fill_proposals_kernel(Grouping<T> grouping, const int64_t* __restrict__ rows,
                          int64_t* __restrict__ segments, int64_t* __restrict__ owner,
                          T* __restrict__ score) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kGroupingWarps;
  for (int64_t cell = static_cast<int64_t>(blockIdx.x) * kGroupingWarps + threadIdx.x / kWarpSize;
       cell < grouping.cells(); cell += step) {
    if (rows[cell] == rows[cell + 1]) continue;
    const int64_t k = cell % grouping.levels, c = cell / grouping.levels % grouping.classes;
    const int64_t b = cell / grouping.levels / grouping.classes;
    const Column<T> column = grouping.column(b, c);
    walk_cell(grouping, column, k, [&](Run run, unsigned proposals, int64_t before) {
      const bool own = (proposals >> lane & 1u) != 0;
      T value = T(0);
      if (grouping.score == ProposalScore::kMax) {
        for (unsigned left = proposals; left != 0;
             left &= left - 1u) {  // one after the other, all lanes on each
          const int at = __ffs(static_cast<int>(left)) - 1;
          const Run shared{__shfl_sync(kWholeWarp, run.start, at), __shfl_sync(kWholeWarp, run.end, at)};
          const T best = warp_maximum(column, shared);
          if (lane == at) value = best;
        }
      } else if (own) {
        value = proposal_score(grouping.score, column, run);  // a sum has its order: a lane each
      }
      if (!own) return;
      const int64_t row = rows[cell] + before;
      segments[2 * row] = run.start;
      segments[2 * row + 1] = run.end;
      owner[3 * row] = b;
      owner[3 * row + 1] = c;
      owner[3 * row + 2] = k;
      score[row] = value;
    });
  }
}

}  // namespace wtal
