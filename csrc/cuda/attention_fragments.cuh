// The building blocks of temporal_attention's tensor-core kernels: rows in shared memory, and the two
// products of tiles.
//
// A block has four warps of 16 rows each. A warp multiplies its 16 rows by kBlockN rows of the other side
// with m16n8k16 instructions. T is __half or __nv_bfloat16; sums are float32.
#pragma once
#include <cstdint>
#include <cstring>

#include "cuda/attention_problem.cuh"
#include "cuda/ptx.cuh"

namespace wtal::attention {

constexpr int kBlockM = 64, kBlockThreads = 128;
constexpr int64_t kMostRows = 1 << 29;  // p.total is less, so rows, distances and windows fit in 32 bits

// The layout of rows of D numbers in shared memory. The eight rows of an ldmatrix must be in different banks.
// There are two ways. Padded rows are 16 bytes longer than their numbers, which needs fewer instructions and
// registers. Swizzled rows permute their 16-byte chunks, with a permutation that repeats every eight rows;
// this needs an eighth less memory at D = 64. It is used if one more block then fits on an SM of 100 KiB.
template <int kDim, bool kSwizzled>
struct Layout {
  static constexpr int D = kDim, kPitch = kSwizzled ? D : D + 8;

  // The position of number c of row r; c is a multiple of 8.
  __device__ static int place(int r, int c) {
    if constexpr (!kSwizzled) return r * kPitch + c;
    return r * D + (c ^ (D == 32 ? r / 2 % 4 : r % 8) * 8);
  }
  // The position d numbers after number 0 or 8 of a row; d is a multiple of 16.
  __device__ static int along(int place, int d) { return kSwizzled ? place ^ d : place + d; }
};

// One video and head of a View; `vectors` tells whether its rows can be copied 16 bytes at a time.
template <class T>
struct HeadRows {
  const T* data;
  int64_t row, column;
  bool vectors;
};

template <class T>
__device__ inline HeadRows<T> head_rows(const View<T>& view, int64_t video, int64_t head, bool vectors) {
  return {view.data + video * view.video + head * view.head, view.row, view.column, vectors};
}

// shared [kCount, D] <- rows first .. first + kCount - 1. Rows from `end` on and columns from dim on become
// zero. With vectors the copies are asynchronous: the caller commits them, and they are complete after
// cp_async_wait_group.
template <class T, class L, int kCount>
__device__ inline void load_rows(T* shared, const HeadRows<T>& rows, int first, int end, int dim) {
  constexpr int kChunks = L::D / 8, kStep = kBlockThreads / kChunks;  // 16-byte chunks per row; rows per pass
  static_assert(kCount % kStep == 0 && kStep % 8 == 0);
  const int c = threadIdx.x % kChunks * 8, own = threadIdx.x / kChunks;
  const int count = end - first < kCount ? end - first : kCount;
  T* to = shared + L::place(own, c);
  const T* from = rows.data + int64_t{first + own} * rows.row + c * rows.column;
  const int64_t step = kStep * rows.row;
  if (rows.vectors) {
#pragma unroll
    for (int r = 0; r < kCount; r += kStep, from += step) {
      const bool live = own + r < count && c < dim;
      ptx::cp_async_16(to + r * L::kPitch, live ? from : rows.data, live ? 16 : 0);
    }
  } else {
    // Not unrolled: this loop rarely runs, and unrolled it would need more registers and instruction cache.
#pragma unroll 1
    for (int r = 0; r < kCount; r += kStep, from += step) {
#pragma unroll 1
      for (int e = 0; e < 8; ++e) {
        const bool live = own + r < count && c + e < dim;
        to[r * L::kPitch + e] = live ? from[e * rows.column] : static_cast<T>(0.f);
      }
    }
  }
}

template <class T>
__device__ inline uint32_t pack(float low, float high) {
  const T pair[2] = {static_cast<T>(low), static_cast<T>(high)};
  uint32_t bits;
  memcpy(&bits, pair, sizeof(bits));
  return bits;
}

// s [16, 8 N] = a [16, D] b [8 N, D]^T; a and b are in shared memory.
template <class T, class L, int N>
__device__ inline void multiply_rows(float (&s)[N][4], const T* a, const T* b) {
  const int lane = threadIdx.x % 32;
  const int a_place = L::place(lane % 16, lane / 16 * 8);
  const int b_place = L::place(lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8);
#pragma unroll
  for (int n = 0; n < N; ++n) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.f;
#pragma unroll
  for (int d = 0; d < L::D; d += 16) {
    uint32_t from_a[4];
    ptx::ldmatrix<4>(from_a, a + L::along(a_place, d));
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t from_b[4];
      ptx::ldmatrix<4>(from_b, b + L::along(b_place, d) + n * 8 * L::kPitch);
      const uint32_t low[2] = {from_b[0], from_b[1]}, high[2] = {from_b[2], from_b[3]};
      ptx::mma_m16n8k16<T>(s[n], from_a, low, s[n]);
      ptx::mma_m16n8k16<T>(s[n + 1], from_a, high, s[n + 1]);
    }
  }
}

// sum [16, D] += p [16, 8 N] b [8 N, D]; p is rounded to T, and b is in shared memory.
template <class T, class L, int N>
__device__ inline void add_weighted_rows(float (&sum)[L::D / 8][4], const float (&p)[N][4], const T* b) {
  const int lane = threadIdx.x % 32;
  const int b_place = L::place(lane % 16, lane / 16 * 8);
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    const uint32_t weights[4] = {pack<T>(p[n][0], p[n][1]), pack<T>(p[n][2], p[n][3]),
                                 pack<T>(p[n + 1][0], p[n + 1][1]), pack<T>(p[n + 1][2], p[n + 1][3])};
#pragma unroll
    for (int d = 0; d < L::D; d += 16) {
      uint32_t from_b[4];
      ptx::ldmatrix<4, true>(from_b, b + L::along(b_place, d) + n * 8 * L::kPitch);
      const uint32_t low[2] = {from_b[0], from_b[1]}, high[2] = {from_b[2], from_b[3]};
      ptx::mma_m16n8k16<T>(sum[d / 8], weights, low, sum[d / 8]);
      ptx::mma_m16n8k16<T>(sum[d / 8 + 1], weights, high, sum[d / 8 + 1]);
    }
  }
}

// The elements of a [16, 8 N] tile that a lane holds: rows `row` and row + 8, columns 8 n + `column` and the
// next column.
struct LanePosition {
  int row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
};

// Output rows t and t + 8 <- sum * factor, if they are before `end`; rows from `live_end` on become zero.
template <class T, int D>
__device__ inline void store_rows(T* data, int64_t stride, int t, int end, int live_end, int dim,
                                  const float (&sum)[D / 8][4], float factor, float factor_below) {
  const LanePosition position;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = t + position.row + 8 * half;
    if (row >= end) continue;
    const bool live = row < live_end;
    const float scale = half ? factor_below : factor;
    T* to = data + row * stride;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      const int d = 8 * n + position.column;
      const float low = live ? sum[n][2 * half] * scale : 0.f,
                  high = live ? sum[n][2 * half + 1] * scale : 0.f;
      if (dim % 2 == 0) {
        const uint32_t both = pack<T>(low, high);
        if (d < dim) *reinterpret_cast<uint32_t*>(to + d) = both;
      } else {
        if (d < dim) to[d] = static_cast<T>(low);
        if (d + 1 < dim) to[d + 1] = static_cast<T>(high);
      }
    }
  }
}

}  // namespace wtal::attention
