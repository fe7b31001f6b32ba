// Median filters of 3 x 3 and 5 x 5 pixels with repeated edges: a sorting network on whole rows. The compiler
// removes the comparisons that the median does not need.
#pragma once
#include <utility>

#include "common/sorting_network.h"
#include "cpu/tvl1_flow_planes.h"

namespace wtal::flow {

template <int kLow, int kHigh>
WTAL_INLINE void order(float* values) {
  const float a = values[kLow], b = values[kHigh];
  values[kLow] = a < b ? a : b;
  values[kHigh] = a < b ? b : a;
}

template <int kCount, size_t... kPair>
WTAL_INLINE void sort(float* values, std::index_sequence<kPair...>) {
  (order<kNetwork<kCount>.pairs[kPair][0], kNetwork<kCount>.pairs[kPair][1]>(values), ...);
}

// Filters rows [begin, end); the margins must be filled.
template <int kSide>
WTAL_INLINE void median_rows(const Plane& plane, Plane& to, int64_t begin, int64_t end) {
  constexpr int kReach = kSide / 2, kCount = kSide * kSide;
  const auto [height, width] = plane.size();
  for (int64_t y = begin; y < end; ++y) {
    const float* rows[kSide];
    for (int i = 0; i < kSide; ++i) {
      rows[i] = plane.row(std::min(std::max<int64_t>(y + i - kReach, 0), height - 1)) - kReach;
    }
    float* __restrict out = to.row(y);
    for (int64_t x = 0; x < width; ++x) {
      float values[kCount];
#pragma GCC unroll 5
      for (int i = 0; i < kSide; ++i) {
#pragma GCC unroll 5
        for (int j = 0; j < kSide; ++j) values[i * kSide + j] = rows[i][x + j];
      }
      sort<kCount>(values, std::make_index_sequence<kNetwork<kCount>.size>{});
      out[x] = values[kCount / 2];
    }
  }
}

WTAL_INLINE void repeat_edges(Plane& plane, int64_t reach) {
  const auto [height, width] = plane.size();
  for (int64_t y = 0; y < height; ++y) {
    float* row = plane.row(y);
    for (int64_t i = 1; i <= reach; ++i) row[-i] = row[0], row[width - 1 + i] = row[width - 1];
  }
}

}  // namespace wtal::flow
