// Bilinear resizing with pixel centres at half integers and clamped edges, like OpenCV's INTER_LINEAR
// for floats.
#pragma once
#include <cmath>
#include <vector>

#include "cpu/tvl1_flow_planes.h"

namespace wtal::flow {

// The position of each target coordinate in the source: the lower neighbour, the upper neighbour, and the
// weight of the upper neighbour.
struct Taps {
  std::vector<int64_t> low, high;
  std::vector<float> weight;

  Taps(int64_t from, int64_t to, double step) : low(to), high(to), weight(to) {
    for (int64_t i = 0; i < to; ++i) {
      const auto at = static_cast<float>((i + 0.5) * step - 0.5);
      auto whole = static_cast<int64_t>(std::floor(at));
      float part = at - static_cast<float>(whole);
      if (whole < 0) whole = 0, part = 0.f;
      if (whole >= from - 1) whole = from - 1, part = 0.f;
      low[i] = whole;
      high[i] = std::min(whole + 1, from - 1);
      weight[i] = part;
    }
  }
};

// step_x, step_y: source pixels per target pixel. Every value is multiplied by gain.
WTAL_INLINE void resize(const Plane& from, Plane& to, double step_y, double step_x, float gain) {
  const Size size = to.size();
  const Taps rows(from.size().height, size.height, step_y), columns(from.size().width, size.width, step_x);
  for (int64_t y = 0; y < size.height; ++y) {
    const float *upper = from.row(rows.low[y]), *lower = from.row(rows.high[y]);
    const float down = rows.weight[y];
    float* out = to.row(y);
    for (int64_t x = 0; x < size.width; ++x) {
      const int64_t left = columns.low[x], right = columns.high[x];
      const float across = columns.weight[x];
      const float above = upper[left] * (1.f - across) + upper[right] * across;
      const float below = lower[left] * (1.f - across) + lower[right] * across;
      out[x] = (above * (1.f - down) + below * down) * gain;
    }
  }
}

}  // namespace wtal::flow
