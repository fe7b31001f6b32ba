// Kernels of group_proposals: columns are copied so that a column's snippets lie side by side; then a warp
// walks over a column and a lane follows a threshold. A column is one (video, class), a cell one (video,
// class, threshold).
#pragma once
#include "common/proposal_rule.h"
#include "cuda/launch.cuh"

namespace wtal {

constexpr int kGroupingThreads = 128;
constexpr int kGroupingWarps = kGroupingThreads / kWarpSize;
constexpr int kFillBlocks = 5;  // an SM; left to itself ptxas spills

// Blocks of gather_columns_kernel: one a tile of 32 snippets x 32 classes of a video.
template <class T>
int64_t gather_blocks(const Grouping<T>& grouping) {
  const auto tiles = [](int64_t size) { return (size + kWarpSize - 1) / kWarpSize; };
  return grouping.batch * tiles(grouping.classes) * tiles(grouping.snippets);
}

// Scores [B, T, C] to columns [B, C, T], a tile a block, through shared memory: neighbouring lanes read
// neighbouring classes and write neighbouring snippets. Snippets beyond a video and classes that are not kept
// are neither read nor written.
template <class T>
__global__ void __launch_bounds__(kGroupingThreads)
    gather_columns_kernel(Grouping<T> grouping, T* __restrict__ columns) {
  __shared__ T tile[kWarpSize][kWarpSize + 1];  // one longer, so that a column's lanes meet no bank twice
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t along = (grouping.snippets + kWarpSize - 1) / kWarpSize;
  const int64_t across = (grouping.classes + kWarpSize - 1) / kWarpSize;
  const int64_t b = blockIdx.x / along / across;
  const int64_t c = blockIdx.x / along % across * kWarpSize, t = blockIdx.x % along * kWarpSize;
  if (c + lane < grouping.classes) {
    const Column<T> column = grouping.column(b, c + lane);
    for (int row = warp; row < kWarpSize && t + row < column.length; row += kGroupingWarps) {
      tile[row][lane] = column[t + row];
    }
  }
  __syncthreads();
  for (int row = warp; row < kWarpSize && c + row < grouping.classes; row += kGroupingWarps) {
    if (t + lane < grouping.column(b, c + row).length) {
      columns[(b * grouping.classes + c + row) * grouping.snippets + t + lane] = tile[lane][row];
    }
  }
}

// low, spread [B, C]: what rescaling takes of each column.
template <class T>
__global__ void __launch_bounds__(kGroupingThreads)
    column_ranges_kernel(Grouping<T> grouping, T* __restrict__ low, T* __restrict__ spread) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kGroupingWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kGroupingWarps + threadIdx.x / kWarpSize;
       i < grouping.columns(); i += step) {
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

// The next lower threshold, or the one before among equal ones. A run that any lower threshold gives is given
// by this one too. Returns whether there is one.
template <class T>
__device__ inline bool next_lower(const Grouping<T>& grouping, int64_t k, T& lower) {
  const T threshold = grouping.thresholds[k];
  bool found = false;
  for (int64_t other = 0; other < grouping.levels; ++other) {
    const T value = grouping.thresholds[other];
    const bool before = value < threshold || (value == threshold && other < k);
    if (!before || (found && value <= lower)) continue;
    lower = value;
    found = true;
  }
  return found;
}

// A warp walks over a column, 32 snippets at a time, and lane i follows level first_level + i. Where runs
// end, `visit(run, proposals)` is called by all lanes: `run` is a proposal of the lanes whose bit is set.
template <class T, class Visit>
__device__ inline void walk_levels(const Grouping<T>& grouping, const Column<T>& column, int64_t first_level,
                                   Visit visit) {
  if (column.length == 0) return;
  const int lane = threadIdx.x % kWarpSize;
  const int64_t left = grouping.levels - first_level;
  const int count = left < kWarpSize ? static_cast<int>(left) : kWarpSize;
  const T threshold = lane < count ? grouping.thresholds[first_level + lane] : T(0);
  T lower = T(0);
  const bool unique = grouping.unique && lane < count && next_lower(grouping, first_level + lane, lower);
  // Of the run that the last 32 left open: where it began, and whether the snippet before is above `lower`.
  int64_t open = 0;
  unsigned joined = 0;
  unsigned last = 0, last_wide = 0;  // whether the snippet before these 32 is above `threshold` and `lower`
  for (int64_t first = 0; first <= column.length; first += kWarpSize) {  // one beyond ends the last run
    const int64_t t = first + lane;
    const bool inside = t < column.length;
    const T score = inside ? column[t] : T(0);
    unsigned above = 0, wide = 0;  // a bit a snippet
    for (int i = 0; i < count; ++i) {
      const T level = __shfl_sync(kWholeWarp, threshold, i);
      const unsigned bits = __ballot_sync(kWholeWarp, inside && score > level);
      if (lane == i) above = bits;
    }
    for (int i = 0; i < count && grouping.unique; ++i) {
      const T level = __shfl_sync(kWholeWarp, lower, i);
      const unsigned bits = __ballot_sync(kWholeWarp, inside && score > level);
      if (lane == i) wide = bits;
    }
    const unsigned shifted = above << 1 | last, shifted_wide = wide << 1 | last_wide;
    const unsigned starts = above & ~shifted;
    for (unsigned ends = ~above & shifted; __ballot_sync(kWholeWarp, ends != 0) != 0; ends &= ends - 1u) {
      Run run{open, 0};
      bool own = false;
      if (ends != 0) {
        const int end = __ffs(static_cast<int>(ends)) - 1;
        unsigned touches = joined | (wide >> end & 1u);
        if (const unsigned earlier = starts & ((1u << end) - 1u); earlier != 0) {
          const int start = 31 - __clz(static_cast<int>(earlier));
          run.start = first + start;
          touches = (shifted_wide >> start | wide >> end) & 1u;
        }
        run.end = first + end;
        own = run.end - run.start >= grouping.min_length && !(unique && touches == 0);
      }
      const unsigned proposals = __ballot_sync(kWholeWarp, own);
      if (proposals != 0) visit(run, proposals);
    }
    if (starts != 0) {
      const int start = 31 - __clz(static_cast<int>(starts));
      open = first + start;
      joined = shifted_wide >> start & 1u;
    }
    last = above >> 31;
    last_wide = wide >> 31;
  }
}

template <class T>
__global__ void __launch_bounds__(kGroupingThreads)
    count_proposals_kernel(Grouping<T> grouping, int64_t* __restrict__ counts) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kGroupingWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kGroupingWarps + threadIdx.x / kWarpSize;
       i < grouping.columns(); i += step) {
    const Column<T> column = grouping.column(i / grouping.classes, i % grouping.classes);
    for (int64_t level = 0; level < grouping.levels; level += kWarpSize) {
      int64_t found = 0;
      walk_levels(grouping, column, level, [&](Run, unsigned proposals) { found += proposals >> lane & 1u; });
      if (level + lane < grouping.levels) counts[i * grouping.levels + level + lane] = found;
    }
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
__global__ void __launch_bounds__(kGroupingThreads, kFillBlocks)
    fill_proposals_kernel(Grouping<T> grouping, const int64_t* __restrict__ rows,
                          int64_t* __restrict__ segments, int64_t* __restrict__ owner,
                          T* __restrict__ score) {
  const int lane = threadIdx.x % kWarpSize;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kGroupingWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kGroupingWarps + threadIdx.x / kWarpSize;
       i < grouping.columns(); i += step) {
    const int64_t b = i / grouping.classes, c = i % grouping.classes;
    const Column<T> column = grouping.column(b, c);
    for (int64_t level = 0; level < grouping.levels; level += kWarpSize) {
      const int64_t k = level + lane;
      int64_t row = k < grouping.levels ? rows[i * grouping.levels + k] : 0;
      walk_levels(grouping, column, level, [&](Run run, unsigned proposals) {
        const bool own = (proposals >> lane & 1u) != 0;
        T value = T(0);
        if (grouping.score == ProposalScore::kMax) {
          // One after the other, all lanes on each.
          for (unsigned left = proposals; left != 0; left &= left - 1u) {
            const int at = __ffs(static_cast<int>(left)) - 1;
            const Run shared{__shfl_sync(kWholeWarp, run.start, at), __shfl_sync(kWholeWarp, run.end, at)};
            const T best = warp_maximum(column, shared);
            if (lane == at) value = best;
          }
        } else if (own) {
          value = proposal_score(grouping.score, column, run);  // a sum has its order: a lane each
        }
        if (!own) return;
        segments[2 * row] = run.start;
        segments[2 * row + 1] = run.end;
        owner[3 * row] = b;
        owner[3 * row + 1] = c;
        owner[3 * row + 2] = k;
        score[row] = value;
        ++row;
      });
    }
  }
}

}  // namespace wtal
