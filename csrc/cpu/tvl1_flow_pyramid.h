// Bilinear resizing with pixel centres at half integers and clamped edges, like OpenCV's INTER_LINEAR
// for floats.
#pragma once
#include <vector>

#include "common/tvl1_flow_interpolation.h"
#include "cpu/tvl1_flow_planes.h"

namespace wtal::flow {

// step_x, step_y: source pixels per target pixel. Every value is multiplied by gain.
WTAL_INLINE void resize(const Plane& from, Plane& to, double step_y, double step_x, float gain) {
  const Size size = to.size();
  std::vector<Tap> columns(size.width);
  for (int64_t x = 0; x < size.width; ++x) columns[x] = tap_of(x, step_x, from.size().width);
  for (int64_t y = 0; y < size.height; ++y) {
    const auto [low, high, down] = tap_of(y, step_y, from.size().height);
    const float *upper = from.row(low), *lower = from.row(high);
    float* out = to.row(y);
    for (int64_t x = 0; x < size.width; ++x) {
      const auto [left, right, across] = columns[x];
      const float above = upper[left] * (1.f - across) + upper[right] * across;
      const float below = lower[left] * (1.f - across) + lower[right] * across;
      out[x] = (above * (1.f - down) + below * down) * gain;
    }
  }
}

}  // namespace wtal::flow
