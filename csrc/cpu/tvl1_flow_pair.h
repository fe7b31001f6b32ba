// TV-L1 flow of one pair of images: the pyramid from the coarsest to the finest level, warps, outer and inner
// iterations. The expensive parts use Kernels, which are compiled for several vector levels, and `each`,
// which calls a function for all indices below a number, in any order and possibly on several threads.
#pragma once
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/tvl1_flow_iteration.h"
#include "cpu/tvl1_flow_median.h"
#include "cpu/tvl1_flow_pyramid.h"
#include "cpu/tvl1_flow_warp.h"

namespace wtal::flow {

struct Kernels {
  void (*residual)(Fields&, const Plane& first, const WarpSource& second, int64_t begin, int64_t end);
  void (*median)(const Plane&, Plane&, int64_t side, int64_t begin, int64_t end);
  void (*move)(Fields&, int64_t band, const Rates&);
  void (*close)(Fields&, int64_t band, const Rates&);
};

WTAL_INLINE void set_residual(Fields& f, const Plane& first, const WarpSource& second, int64_t begin,
                              int64_t end) {
  const int64_t width = first.size().width;
  for (int64_t y = begin; y < end; ++y) {
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

template <class Each>
void refine(Plane& u, Plane& v, const Plane& first, const Plane& second, const Settings& s,
            const Kernels& kernels, const Each& each) {
  const Size size = first.size();
  const int64_t count = bands(size.height);
  const auto begin = [&](int64_t band) { return band_begin(size.height, band); };
  WarpSource source(size);
  Fields f(size);
  Plane smooth_u(size), smooth_v(size);
  std::swap(f.u, u);
  std::swap(f.v, v);
  const Rates rates{s.threshold(), static_cast<float>(s.theta), s.dual_rate()};
  const float enough = s.enough(size);
  each(count, [&](int64_t band) {
    source.rows(second, begin(band), begin(band + 1));
    f.clear_dual(begin(band), begin(band + 1));
  });
  for (int64_t warp = 0; warp < s.warps; ++warp) {
    each(count, [&](int64_t band) { kernels.residual(f, first, source, begin(band), begin(band + 1)); });
    float error = std::numeric_limits<float>::max();
    for (int64_t outer = 0; outer < s.outer && error > enough; ++outer) {
      if (s.median > 1) {
        repeat_edges(f.u, s.median / 2);
        repeat_edges(f.v, s.median / 2);
        each(count, [&](int64_t band) {
          kernels.median(f.u, smooth_u, s.median, begin(band), begin(band + 1));
          kernels.median(f.v, smooth_v, s.median, begin(band), begin(band + 1));
        });
        std::swap(f.u, smooth_u);
        std::swap(f.v, smooth_v);
      }
      for (int64_t inner = 0; inner < s.inner && error > enough; ++inner) {
        each(count, [&](int64_t band) { kernels.move(f, band, rates); });
        each(count, [&](int64_t band) { kernels.close(f, band, rates); });
        error = static_cast<float>(std::accumulate(f.changes.begin(), f.changes.begin() + count, 0.0));
      }
    }
  }
  std::swap(f.u, u);
  std::swap(f.v, v);
}

WTAL_INLINE void to_floats(const uint8_t* pixels, Plane& plane) {
  const auto [height, width] = plane.size();
  for (int64_t y = 0; y < height; ++y, pixels += width) std::copy(pixels, pixels + width, plane.row(y));
}

// first, second [H, W] -> flow [H, W, 2]
template <class Each>
void flow_of_pair(const uint8_t* first, const uint8_t* second, float* flow, Size size, const Settings& s,
                  const Kernels& kernels, const Each& each) {
  const std::vector<Size> sizes = pyramid_sizes(size, s);
  std::vector<Plane> images[2];
  for (auto& levels : images)
    for (const Size level : sizes) levels.emplace_back(level);
  each(2, [&](int64_t image) {
    std::vector<Plane>& levels = images[image];
    to_floats(image ? second : first, levels[0]);
    for (size_t level = 1; level < sizes.size(); ++level) {
      resize(levels[level - 1], levels[level], 1 / s.scale_step, 1 / s.scale_step, 1.f);
    }
  });
  Plane flows[2]{Plane(sizes.back()), Plane(sizes.back())};
  for (Plane& axis : flows) axis.clear(0, sizes.back().height);
  for (size_t level = sizes.size(); level-- > 0;) {
    const Size now = sizes[level], before = flows[0].size();
    if (level + 1 < sizes.size()) {
      const double step_y = static_cast<double>(before.height) / static_cast<double>(now.height);
      const double step_x = static_cast<double>(before.width) / static_cast<double>(now.width);
      const auto gain = static_cast<float>(1 / s.scale_step);
      Plane finer[2]{Plane(now), Plane(now)};
      each(2, [&](int64_t axis) { resize(flows[axis], finer[axis], step_y, step_x, gain); });
      std::swap(flows, finer);
    }
    refine(flows[0], flows[1], images[0][level], images[1][level], s, kernels, each);
  }
  for (int64_t y = 0; y < size.height; ++y) {
    const float *from_u = flows[0].row(y), *from_v = flows[1].row(y);
    for (int64_t x = 0; x < size.width; ++x, flow += 2) flow[0] = from_u[x], flow[1] = from_v[x];
  }
}

}  // namespace wtal::flow
