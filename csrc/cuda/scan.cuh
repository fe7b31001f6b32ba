// The exclusive prefix sum of counts, which is the position of the first output of each group or cell.
#pragma once
#include <cstdint>

#include "cuda/launch.cuh"

namespace wtal {

constexpr int kScanThreads = 1024;

// offsets[i] = counts[0] + ... + counts[i - 1]; offsets[n] is the total. One block of kScanThreads threads
// loops over the counts, because there are usually a few hundred thousand at most.
template <class Count>
__global__ void __launch_bounds__(kScanThreads)
    exclusive_scan_kernel(const Count* __restrict__ counts, int64_t n, Count* __restrict__ offsets) {
  __shared__ Count warp_totals[kScanThreads / kWarpSize];
  __shared__ Count chunk_total;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  Count before = 0;  // the sum of the earlier chunks
  for (int64_t chunk = 0; chunk < n; chunk += kScanThreads) {
    const int64_t i = chunk + threadIdx.x;
    const Count count = i < n ? counts[i] : 0;
    Count sum = count;  // the inclusive sum over the warp
    for (int step = 1; step < kWarpSize; step *= 2) {
      const Count left = __shfl_up_sync(kWholeWarp, sum, step);
      if (lane >= step) sum += left;
    }
    if (lane == kWarpSize - 1) warp_totals[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      Count running = 0;
      for (int w = 0; w < kScanThreads / kWarpSize; ++w) {
        const Count total = warp_totals[w];
        warp_totals[w] = running;
        running += total;
      }
      chunk_total = running;
    }
    __syncthreads();
    // No third barrier is needed: a warp's total is read only by the lane that overwrites it in the next
    // chunk, and chunk_total changes only after the next barrier.
    const Count earlier =
        __shfl_sync(kWholeWarp, lane == kWarpSize - 1 ? warp_totals[warp] : 0, kWarpSize - 1);
    if (i < n) offsets[i] = before + earlier + sum - count;
    before += chunk_total;
  }
  if (threadIdx.x == 0) offsets[n] = before;
}

}  // namespace wtal
