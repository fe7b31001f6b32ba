// The mask of temporal_attention's tensor-core kernels: the range of tiles that a block visits, whether a
// tile needs a mask, and the mask itself.
#pragma once
#include <cmath>
#include <cstdint>

#include "cuda/attention_fragments.cuh"

namespace wtal::attention {

// The tiles of the other side that rows first .. last of a video see.
struct VisibleRange {
  int begin, end;
  __device__ VisibleRange(const Problem& p, int video_begin, int video_end, int first, int last) {
    const int window = static_cast<int>(p.window);
    begin = first - video_begin > window ? first - window : video_begin;
    end = last + window < video_end ? last + window + 1 : video_end;
  }
};

// Whether the warp's rows first .. first + 15 see none or all of columns j .. j + count - 1. No row and no
// column is before the video, and column j is before its end. If all of the rows are past the end, they see
// none, and the warp has nothing to compute.
struct TileMask {
  bool none, all;
  __device__ TileMask(const Problem& p, int first, int j, int count, int end) {
    const int window = static_cast<int>(p.window);
    none = first >= end || j > first + 15 + window || j + count - 1 + window < first;
    all = j + count <= end && j + count - 1 - first <= window && first + 15 - j <= window;
  }
};

// s [16, 8 N] <- -infinity if the row does not see the column, which is outside the window or the video.
// Positions are 32-bit and relative to the lane's first element, so that 0 <= row - column + window <= 2
// window is one unsigned comparison.
template <int N>
__device__ inline void apply_mask(float (&s)[N][4], const Problem& p, int first, int j, int end) {
  const LanePosition position;
  const int window = static_cast<int>(p.window);  // at most p.total
  const unsigned span = 2u * static_cast<unsigned>(window);
  const int shift = first - j + position.row - position.column + window;
  const int limit = (end - j < 8 * N ? end - j : 8 * N) - position.column;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int column = 8 * n + e % 2;
      const auto apart = static_cast<unsigned>(shift + (e >= 2 ? 8 : 0) - column);
      if (column >= limit || apart > span) s[n][e] = -INFINITY;
    }
  }
}

}  // namespace wtal::attention
