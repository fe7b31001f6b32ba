// The building blocks of temporal_attention's tensor-core kernels: rows in shared memory, and where a lane's
// numbers are in a tile. The products of tiles are in attention_products.cuh.
//
// A block has four warps of 16 rows each. A warp multiplies its 16 rows by kBlockN rows of the other side. T
// is float, __half or __nv_bfloat16; sums are float32.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/attention_problem.cuh"
#include "cuda/ptx.cuh"

namespace wtal::attention {

template <class T>
constexpr int kChunk = 16 / static_cast<int>(sizeof(T));  // numbers in 16 bytes

// The layout of rows of D numbers in shared memory. The eight rows of an ldmatrix must be in different banks.
// There are two ways. Padded rows are 16 bytes longer than their numbers, which needs fewer instructions and
// registers. Swizzled rows permute their 16-byte chunks, with a permutation that repeats every eight rows;
// this needs less memory. It is used if one more block then fits on an SM of 100 KiB, or if the rows would
// not fit otherwise.
template <class T, int kDim, bool kSwizzled>
struct Layout {
  static constexpr int D = kDim, kPitch = kSwizzled ? D : D + kChunk<T>;
  static_assert(!kSwizzled || D >= 8 * kChunk<T>);

  // The position of number c of row r; c is a multiple of kChunk.
  __device__ static int place(int r, int c) {
    return kSwizzled ? r * D + (c ^ r % 8 * kChunk<T>) : r * kPitch + c;
  }
  // The position d numbers to the right of a place in the first numbers of a row. How many these are is a
  // power of two that divides d. Only the lowest bits are permuted, so the rest of d is a constant offset.
  __device__ static int along(int place, int d) {
    constexpr int kSpan = 8 * kChunk<T>;
    return kSwizzled ? (place ^ d % kSpan) + d / kSpan * kSpan : place + d;
  }
  // The position r rows below a place in the first rows. How many these are is a power of two that divides r.
  __device__ static int below(int place, int r) {
    return kSwizzled ? r * D + (place ^ r % 8 * kChunk<T>) : r * kPitch + place;
  }
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
template <class L, int kCount, class T>
__device__ inline void load_rows(T* shared, const HeadRows<T>& rows, int first, int end, int dim) {
  constexpr int kChunks = L::D / kChunk<T>, kStep = kBlockThreads / kChunks;  // per row; rows per pass
  static_assert(kCount % kStep == 0);
  const int c = threadIdx.x % kChunks * kChunk<T>, own = threadIdx.x / kChunks;
  const int count = end - first < kCount ? end - first : kCount;
  const int place = L::place(own, c);
  const T* from = rows.data + int64_t{first + own} * rows.row + c * rows.column;
  const int64_t step = kStep * rows.row;
  if (rows.vectors) {
#pragma unroll
    for (int r = 0; r < kCount; r += kStep, from += step) {
      const bool live = own + r < count && c < dim;
      ptx::cp_async_16(shared + L::below(place, r), live ? from : rows.data, live ? 16 : 0);
    }
  } else {
    // Not unrolled: this loop rarely runs, and unrolled it would need more registers and instruction cache.
#pragma unroll 1
    for (int r = 0; r < kCount; r += kStep, from += step) {
#pragma unroll 1
      for (int e = 0; e < kChunk<T>; ++e) {
        const bool live = own + r < count && c + e < dim;
        shared[L::below(place, r) + e] = live ? from[e * rows.column] : static_cast<T>(0.f);
      }
    }
  }
}

// The elements of a [16, 8 N] tile of scores that a lane holds: rows `row` and row + 8, columns 8 n +
// `column` and the next column.
struct LanePosition {
  int row = threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
};

// The elements of the sums [16, D] that a lane holds. The rows are those of LanePosition, and the columns are
// runs of adjacent ones. Number i of run r is at column(r) + i. In registers it is in tile(r, i), where it is
// element(r, i) of the row's two.
template <class T>
struct SumRuns {  // the order of scores
  static constexpr int kLength = 2;
  __device__ static int column(int r) { return 8 * r + threadIdx.x % 4 * 2; }
  __device__ static int tile(int r, int) { return r; }
  __device__ static int element(int, int i) { return i; }
};
template <>
struct SumRuns<float> {  // add_weighted_rows reads four columns at a time
  static constexpr int kLength = 4;
  __device__ static int column(int r) { return 32 * (r / 2) + threadIdx.x % 4 * 8 + 4 * (r % 2); }
  __device__ static int tile(int r, int i) { return r / 2 * 4 + i; }
  __device__ static int element(int r, int) { return r % 2; }
};

// Output rows t and t + 8 <- sum * factor, if they are before `end`; rows from `live_end` on become zero.
template <class T, int D>
__device__ inline void store_rows(T* data, int64_t stride, int t, int end, int live_end, int dim,
                                  const float (&sum)[D / 8][4], float factor, float factor_below) {
  using Runs = SumRuns<T>;
  constexpr int kLength = Runs::kLength;
  using Vector = std::conditional_t<kLength == 4, uint4, uint32_t>;
  static_assert(sizeof(Vector) == kLength * sizeof(T));
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = t + LanePosition{}.row + 8 * half;
    if (row >= end) continue;
    const bool live = row < live_end;
    const float scale = half ? factor_below : factor;
    T* to = data + row * stride;
#pragma unroll
    for (int r = 0; r < D / 4 / kLength; ++r) {
      T run[kLength];
#pragma unroll
      for (int i = 0; i < kLength; ++i) {
        run[i] = static_cast<T>(live ? sum[Runs::tile(r, i)][2 * half + Runs::element(r, i)] * scale : 0.f);
      }
      const int d = Runs::column(r);
      if (dim % kLength == 0) {
        Vector bits;
        memcpy(&bits, run, sizeof(bits));
        if (d < dim) *reinterpret_cast<Vector*>(to + d) = bits;
      } else {
#pragma unroll
        for (int i = 0; i < kLength; ++i) {
          if (d + i < dim) to[d + i] = run[i];
        }
      }
    }
  }
}

}  // namespace wtal::attention
