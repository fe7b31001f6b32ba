// Row numbers from counts: where the outputs of each group or cell begin.
#pragma once
#include <cstdint>

#include "cuda/launch.cuh"

namespace wtal {

constexpr int kScanThreads = 1024;

// offsets[i] = counts[0] + ... + counts[i - 1], offsets[n] the total. One block of kScanThreads threads,
// which walks over the counts: there are at most a few hundred thousand.
inline __global__ void exclusive_scan_kernel(const int64_t* __restrict__ counts, int64_t n,
                                             int64_t* __restrict__ offsets) {
  __shared__ int64_t warp_totals[kScanThreads / kWarpSize];
  __shared__ int64_t chunk_total;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  int64_t before = 0;  // of the chunks already done
  for (int64_t chunk = 0; chunk < n; chunk += kScanThreads) {
    const int64_t i = chunk + threadIdx.x;
    const int64_t count = i < n ? counts[i] : 0;
    int64_t sum = count;  // inclusive, over the warp
    for (int step = 1; step < kWarpSize; step *= 2) {
      const int64_t left = __shfl_up_sync(kWholeWarp, sum, step);
      if (lane >= step) sum += left;
    }
    if (lane == kWarpSize - 1) warp_totals[warp] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      int64_t running = 0;
      for (int w = 0; w < kScanThreads / kWarpSize; ++w) {
        const int64_t total = warp_totals[w];
        warp_totals[w] = running;
        running += total;
      }
      chunk_total = running;
    }
    __syncthreads();
    if (i < n) offsets[i] = before + warp_totals[warp] + sum - count;
    before += chunk_total;
    __syncthreads();  // all have read what the next chunk overwrites
  }
  if (threadIdx.x == 0) offsets[n] = before;
}

}  // namespace wtal
