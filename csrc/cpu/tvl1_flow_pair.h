// TV-L1 flow of one pair of images: the pyramid from its coarsest level down, warps, outer and inner
// iterations.
#pragma once
#include <limits>

#include "cpu/tvl1_flow_iteration.h"
#include "cpu/tvl1_flow_median.h"
#include "cpu/tvl1_flow_pyramid.h"
#include "cpu/tvl1_flow_warp.h"

namespace wtal::flow {

struct Settings {
  double tau, lambda, theta, epsilon, scale_step;
  int64_t scales, warps, inner, outer, median;
};

constexpr int64_t kSmallestSide = 16;  // no level below the first has a shorter side

WTAL_INLINE void set_residual(Fields& f, const Plane& first, const WarpSource& second) {
  const auto [height, width] = first.size();
  for (int64_t y = 0; y < height; ++y) {
    const float *u = f.u.row(y), *v = f.v.row(y), *image = first.row(y);
    float *gx = f.image_x.row(y), *gy = f.image_y.row(y), *residual = f.residual.row(y);
    for (int64_t x = 0; x < width; ++x) {
      WarpSource::Four moved;
      second.at(static_cast<float>(x) + u[x], static_cast<float>(y) + v[x], moved);
      gx[x] = moved[1];
      gy[x] = moved[2];
      residual[x] = moved[0] - moved[1] * u[x] - moved[2] * v[x] - image[x];
    }
  }
}

WTAL_INLINE void refine(Plane& u, Plane& v, const Plane& first, const Plane& second, const Settings& s) {
  const Size size = first.size();
  const WarpSource source(second);
  Fields f(size);
  Plane scratch(size);
  std::swap(f.u, u);
  std::swap(f.v, v);
  const auto theta = static_cast<float>(s.theta), threshold = static_cast<float>(s.lambda * s.theta),
             rate = static_cast<float>(s.tau / s.theta),
             enough = static_cast<float>(s.epsilon * s.epsilon * static_cast<double>(size.area()));
  for (int64_t warp = 0; warp < s.warps; ++warp) {
    set_residual(f, first, source);
    float error = std::numeric_limits<float>::max();
    for (int64_t outer = 0; outer < s.outer && error > enough; ++outer) {
      if (s.median == 3) median_filter<3>(f.u, scratch), median_filter<3>(f.v, scratch);
      if (s.median == 5) median_filter<5>(f.u, scratch), median_filter<5>(f.v, scratch);
      for (int64_t inner = 0; inner < s.inner && error > enough; ++inner) {
        error = iterate(f, threshold, theta, rate);
      }
    }
  }
  std::swap(f.u, u);
  std::swap(f.v, v);
}

WTAL_INLINE Plane as_floats(const uint8_t* pixels, Size size) {
  Plane plane(size);
  for (int64_t y = 0; y < size.height; ++y, pixels += size.width) {
    std::copy(pixels, pixels + size.width, plane.row(y));
  }
  return plane;
}

// first, second [H, W] -> flow [H, W, 2]
WTAL_INLINE void flow_of_pair(const uint8_t* first, const uint8_t* second, float* flow, Size size,
                              const Settings& s) {
  std::vector<Plane> firsts, seconds;
  firsts.push_back(as_floats(first, size));
  seconds.push_back(as_floats(second, size));
  while (static_cast<int64_t>(firsts.size()) < s.scales) {
    const Size last = firsts.back().size();
    const Size next{std::lrint(static_cast<double>(last.height) * s.scale_step),
                    std::lrint(static_cast<double>(last.width) * s.scale_step)};
    if (std::min(next.height, next.width) < kSmallestSide) break;
    firsts.push_back(resized(firsts.back(), next, 1 / s.scale_step, 1 / s.scale_step, 1.f));
    seconds.push_back(resized(seconds.back(), next, 1 / s.scale_step, 1 / s.scale_step, 1.f));
  }
  Plane u(firsts.back().size()), v(firsts.back().size());
  for (size_t level = firsts.size(); level-- > 0;) {
    const Size now = firsts[level].size(), before = u.size();
    if (level + 1 < firsts.size()) {
      const double step_y = static_cast<double>(before.height) / static_cast<double>(now.height);
      const double step_x = static_cast<double>(before.width) / static_cast<double>(now.width);
      const auto gain = static_cast<float>(1 / s.scale_step);
      u = resized(u, now, step_y, step_x, gain);
      v = resized(v, now, step_y, step_x, gain);
    }
    refine(u, v, firsts[level], seconds[level], s);
  }
  for (int64_t y = 0; y < size.height; ++y) {
    const float *from_u = u.row(y), *from_v = v.row(y);
    for (int64_t x = 0; x < size.width; ++x, flow += 2) flow[0] = from_u[x], flow[1] = from_v[x];
  }
}

}  // namespace wtal::flow
