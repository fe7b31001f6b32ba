// The order of a large group's rows in soft_nms on CUDA: by octave of length, then by start, so that rows
// which lie near each other overlap the same segments. It decides how much work a selection is, never what it
// gives: rows of the same cell lie as the threads came.
#pragma once
#include <cstring>
#include <limits>

#include "cuda/soft_nms_group.cuh"
#include "cuda/soft_nms_team.cuh"

namespace wtal {

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();

// A row in its place, read as a whole; `row` counts from the group's first.
template <class T>
struct alignas(16) OrderedRow {
  T start, end, score;
  uint32_t row;
};

// Where the starts of a group lie, and its greatest length.
template <class T>
struct Extent {
  T low, high, longest;

  __device__ static Extent none() { return {kInfinity<T>, -kInfinity<T>, T(0)}; }
  __device__ void join(T other_low, T other_high, T other_longest) {
    low = other_low < low ? other_low : low;
    high = other_high > high ? other_high : high;
    longest = other_longest > longest ? other_longest : longest;
  }
};

// The extent of all threads' together. Has a barrier.
template <class T>
__device__ inline Extent<T> block_extent(Extent<T> mine) {
  __shared__ Extent<T> extents[kNmsWarps];
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    const T low = __shfl_xor_sync(kWholeWarp, mine.low, offset);
    const T high = __shfl_xor_sync(kWholeWarp, mine.high, offset);
    const T longest = __shfl_xor_sync(kWholeWarp, mine.longest, offset);
    mine.join(low, high, longest);
  }
  if (threadIdx.x % kWarpSize == 0) extents[threadIdx.x / kWarpSize] = mine;
  __syncthreads();
  for (const Extent<T>& other : extents) mine.join(other.low, other.high, other.longest);
  return mine;
}

// A bin for each octave of length, the longest first, and each cell of starts in it.
constexpr int kOctaves = 8, kCells = 512, kBins = kOctaves * kCells;

template <class T>
struct Binning {
  T origin, cells_per_unit;
  int top;  // the exponent of the greatest length

  __device__ explicit Binning(const Extent<T>& extent)
      : origin(extent.low),
        cells_per_unit(T(kCells) / (extent.high - extent.low)),
        top(exponent_of(extent.longest)) {}

  __device__ int bin(const Interval<T>& one) const {
    const int below = top - exponent_of(one.length);
    const T cell = (one.start - origin) * cells_per_unit;
    const T last = T(kCells - 1);
    // NaN, where all starts are equal or infinitely far apart, is cell 0.
    const int inside = cell > T(0) ? static_cast<int>(cell < last ? cell : last) : 0;
    return (below < kOctaves ? below : kOctaves - 1) * kCells + inside;
  }

  // Of a normal number, which every length is: 1e-6 is the smallest.
  __device__ static int exponent_of(T length) {
    using Constants = ExpConstants<T>;
    typename Constants::Bits bits;
    memcpy(&bits, &length, sizeof(bits));
    return static_cast<int>(bits >> Constants::kMantissa);
  }
};

// Turns the number of rows in each bin into the place of its first. Returns the number of all. Has two
// barriers.
__device__ inline uint32_t places_of(uint32_t (&bins)[kBins]) {
  constexpr int kOwn = kBins / kNmsThreads;
  __shared__ uint32_t totals[kNmsWarps];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  uint32_t* const own = bins + threadIdx.x * kOwn;
  uint32_t mine = 0;
  for (int i = 0; i < kOwn; ++i) mine += own[i];
  uint32_t sum = mine;  // of the lanes up to this one
  for (int step = 1; step < kWarpSize; step *= 2) {
    const uint32_t left = __shfl_up_sync(kWholeWarp, sum, step);
    if (lane >= step) sum += left;
  }
  if (lane == kWarpSize - 1) totals[warp] = sum;
  __syncthreads();
  uint32_t place = sum - mine, all = 0;
  for (int w = 0; w < kNmsWarps; ++w) {
    if (w < warp) place += totals[w];
    all += totals[w];
  }
  for (int i = 0; i < kOwn; ++i) {
    const uint32_t count = own[i];
    own[i] = place;
    place += count;
  }
  __syncthreads();
  return all;
}

// Each thread calls visit(row, score, interval) for its share of the rows that may be taken.
template <class T, class Visit>
__device__ inline void for_each_admitted(const NmsGroup<T>& group, const Suppression<T>& rule, Visit visit) {
  for (uint32_t row = threadIdx.x; row < group.size(); row += kNmsThreads) {
    const T score = rule.admit(group.score(row));
    if (score != rule.kDropped) visit(row, score, group.interval(row));
  }
}

// Writes the rows that may be taken in order and returns how many they are; the whole block calls it. A
// counting sort.
template <class T>
__device__ inline uint32_t order_rows(const NmsGroup<T>& group, const Suppression<T>& rule,
                                      OrderedRow<T>* __restrict__ ordered) {
  __shared__ uint32_t bins[kBins];
  for (int i = threadIdx.x; i < kBins; i += kNmsThreads) bins[i] = 0;
  Extent<T> extent = Extent<T>::none();
  for_each_admitted(group, rule, [&](uint32_t, T, const Interval<T>& own) {
    extent.join(own.start, own.start, own.length);
  });
  const Binning<T> binning(block_extent(extent));
  for_each_admitted(group, rule,
                    [&](uint32_t, T, const Interval<T>& own) { atomicAdd(&bins[binning.bin(own)], 1u); });
  __syncthreads();
  const uint32_t count = places_of(bins);
  for_each_admitted(group, rule, [&](uint32_t row, T score, const Interval<T>& own) {
    ordered[atomicAdd(&bins[binning.bin(own)], 1u)] = {own.start, own.end, score, row};
  });
  __syncthreads();
  return count;
}

}  // namespace wtal
