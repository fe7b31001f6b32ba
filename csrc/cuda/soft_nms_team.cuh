// Which row of a group is taken next, found by a warp or a block together.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/soft_nms_decay.h"
#include "cuda/launch.cuh"

namespace wtal {

constexpr int kNmsThreads = 512, kNmsWarps = kNmsThreads / kWarpSize;

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
  __device__ void see(const Front& other) {
    if (other.key > key || (other.key == key && other.row < row)) *this = other;
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

  // Calls use two places in turn. A thread that is one call ahead writes to the other place, and the barrier
  // lets nobody be two calls ahead.
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

}  // namespace wtal
