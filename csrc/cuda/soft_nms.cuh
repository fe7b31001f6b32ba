// Kernels of soft_nms: one block a group, which follows the sequential definition step by step.
#pragma once
#include "common/nms_values.h"
#include "common/suppression.h"
#include "cuda/launch.cuh"

namespace wtal {

constexpr int kNmsThreads = 256;

// faults: the first position each in offsets, segments and scores that breaks a rule; kNoFault before.
template <class T>
__global__ void check_values_kernel(const T* __restrict__ segments, const T* __restrict__ scores,
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

// The first of all threads' candidates, in every thread. All threads of the block call it.
template <class T>
__device__ inline Candidate<T> first_of_block(Candidate<T> mine) {
  constexpr int kWarps = kNmsThreads / kWarpSize;
  __shared__ T warp_score[kWarps];
  __shared__ int64_t warp_index[kWarps];
  const int lane = threadIdx.x % kWarpSize;
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    const T score = __shfl_xor_sync(kWholeWarp, mine.score, step);
    const int64_t index = __shfl_xor_sync(kWholeWarp, mine.index, step);
    const Candidate<T> other{score, index};
    if (other.before(mine)) mine = other;
  }
  if (lane == 0) {
    warp_score[threadIdx.x / kWarpSize] = mine.score;
    warp_index[threadIdx.x / kWarpSize] = mine.index;
  }
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) {
    const Candidate<T> other{warp_score[warp], warp_index[warp]};
    if (other.before(mine)) mine = other;
  }
  __syncthreads();  // all have read what the next call overwrites
  return mine;
}

// Writes the rows kept of group g from offsets[g] on, and how many to counts[g]. Faulty input: none.
// running [N] is scratch: the score that each row is left with. A thread looks only at rows of its own.
template <class T>
__global__ void suppress_kernel(const T* __restrict__ segments, const T* __restrict__ scores,
                                const int64_t* __restrict__ offsets, int64_t groups, Suppression<T> rule,
                                int64_t limit, const long long* __restrict__ faults, T* __restrict__ running,
                                int64_t* __restrict__ keep, T* __restrict__ kept_scores,
                                int64_t* __restrict__ counts) {
  const bool fine = faults[0] == kNoFault && faults[1] == kNoFault && faults[2] == kNoFault;
  for (int64_t g = blockIdx.x; g < groups; g += gridDim.x) {
    const int64_t begin = fine ? offsets[g] : 0, end = fine ? offsets[g + 1] : 0;
    Candidate<T> mine{rule.kDropped, end};
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
      running[i] = rule.admit(scores[i]);
      const Candidate<T> other{running[i], i};
      if (other.before(mine)) mine = other;
    }
    int64_t selected = 0;
    while (selected < limit) {
      const Candidate<T> best = first_of_block(mine);
      if (best.score == rule.kDropped) break;
      if (threadIdx.x == 0) {
        keep[begin + selected] = best.index;
        kept_scores[begin + selected] = best.score;
      }
      ++selected;
      const Interval<T> taken = make_interval(segments[2 * best.index], segments[2 * best.index + 1]);
      mine = {rule.kDropped, end};
      for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        T score = running[i];
        if (score == rule.kDropped) continue;
        score = i == best.index
                    ? rule.kDropped
                    : rule.decay(score, tiou(taken, make_interval(segments[2 * i], segments[2 * i + 1])));
        running[i] = score;
        const Candidate<T> other{score, i};
        if (other.before(mine)) mine = other;
      }
    }
    if (threadIdx.x == 0) counts[g] = selected;
  }
}

// Moves what suppress_kernel kept to rows[g] on.
template <class T>
__global__ void compact_kernel(const int64_t* __restrict__ offsets, const int64_t* __restrict__ rows,
                               int64_t groups, const int64_t* __restrict__ keep,
                               const T* __restrict__ kept_scores, int64_t* __restrict__ keep_out,
                               T* __restrict__ scores_out) {
  for (int64_t g = blockIdx.x; g < groups; g += gridDim.x) {
    for (int64_t i = threadIdx.x; i < rows[g + 1] - rows[g]; i += blockDim.x) {
      keep_out[rows[g] + i] = keep[offsets[g] + i];
      scores_out[rows[g] + i] = kept_scores[offsets[g] + i];
    }
  }
}

}  // namespace wtal
