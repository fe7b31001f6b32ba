// Which keys a query sees in temporal_attention's tensor-core kernels: the range of tiles that a block
// visits, whether a tile needs the mask at all, and the mask itself.
#pragma once
#include <cmath>
#include <cstdint>

#include "cuda/attention_fragments.cuh"

namespace wtal::attention {

// The part of the other side that rows first .. last of a video see, cut into tiles.
struct VisibleRange {
  int64_t begin, end;
  __device__ VisibleRange(const Problem& p, const Video& video, int64_t first, int64_t last)
      : begin(first - video.begin > p.window ? first - p.window : video.begin),
        end(last + p.window < video.end ? last + p.window + 1 : video.end) {}
};

// How a warp's rows first .. first + 15 see columns j .. j + count - 1 of a video; no column comes before it.
struct TileMask {
  bool none, all;
  __device__ TileMask(const Problem& p, int64_t first, int64_t j, int count, int64_t end)
      : none(j >= end || j > first + 15 + p.window || j + count - 1 + p.window < first),
        all(j + count <= end && j + count - 1 - first <= p.window && first + 15 - j <= p.window) {}
};

// s [16, 8 N] <- -infinity where a row does not see the column: beyond the window or the video.
template <int N>
__device__ inline void apply_mask(float (&s)[N][4], const Problem& p, int64_t first, int64_t j, int64_t end) {
  const LanePosition position;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int64_t row = first + position.row + (e >= 2 ? 8 : 0),
                    column = j + 8 * n + position.column + e % 2;
      const int64_t apart = row > column ? row - column : column - row;
      if (column >= end || apart > p.window) s[n][e] = -INFINITY;
    }
  }
}

}  // namespace wtal::attention
