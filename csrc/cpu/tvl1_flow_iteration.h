// One inner iteration of TV-L1: the flow is updated from the thresholded residual and the divergence of the
// dual, the dual from the gradient of the flow. Row y of the flow needs rows y and y - 1 of the old dual. Row
// y - 1 of the new dual needs rows y - 1 and y of the new flow. So one pass over a band of rows updates both
// in place. The last row of a band's dual needs the first row of the next band's flow, so it is updated after
// all bands are done.
#pragma once
#include <array>
#include <cmath>
#include <vector>

#include "cpu/tvl1_flow_planes.h"

namespace wtal::flow {

// The bands depend only on the image, so that the order of a sum does not depend on the number of threads. A
// small image is one band, because the work would not justify another thread.
constexpr int64_t kBands = 8, kSmallestDivided = 64;

WTAL_INLINE int64_t bands(int64_t height) { return height < kSmallestDivided ? 1 : kBands; }
WTAL_INLINE int64_t band_begin(int64_t height, int64_t band) { return height * band / bands(height); }

struct Fields {
  Plane u, v;  // the flow in x and in y
  Plane ux_dual, uy_dual, vx_dual, vy_dual;
  Plane image_x, image_y,
      residual;              // gradient of the warped image; (warped image - first image) - gradient . flow
  std::vector<float> zeros;  // a row
  Plane change;              // one row per band: the squared change of the flow, summed per column
  alignas(kCacheLine) std::array<double, kBands> changes{};  // the sum of each of these rows

  explicit Fields(Size size)
      : ux_dual(size),
        uy_dual(size),
        vx_dual(size),
        vy_dual(size),
        image_x(size),
        image_y(size),
        residual(size),
        zeros(size.width, 0.f),
        change({bands(size.height), size.width}) {}

  void clear_dual(int64_t begin, int64_t end) {
    for (Plane* dual : {&ux_dual, &uy_dual, &vx_dual, &vy_dual}) dual->clear(begin, end);
  }
};

struct alignas(kCacheLine) Rates {
  float threshold, theta, dual;
};

// Updates row y of the flow.
WTAL_INLINE void move_row(Fields& f, int64_t y, float* __restrict change, float threshold, float theta) {
  const int64_t width = f.residual.size().width;
  float* __restrict u = f.u.row(y), * __restrict v = f.v.row(y);
  const float *gx = f.image_x.row(y), *gy = f.image_y.row(y), *constant = f.residual.row(y);
  const float *ux = f.ux_dual.row(y), *uy = f.uy_dual.row(y), *vx = f.vx_dual.row(y), *vy = f.vy_dual.row(y);
  const float* uy_above = y ? f.uy_dual.row(y - 1) : f.zeros.data();
  const float* vy_above = y ? f.vy_dual.row(y - 1) : f.zeros.data();
  // The compiler would have to compare too many pointers before the loop, and does not vectorise it unasked.
#pragma omp simd
  for (int64_t x = 0; x < width; ++x) {
    const float square = gx[x] * gx[x] + gy[x] * gy[x];
    const float rho = constant[x] + (gx[x] * u[x] + gy[x] * v[x]);
    const float limit = threshold * square;
    float step = square > 1.1920929e-7f ? -rho / square : 0.f;
    step = rho > limit ? -threshold : step;
    step = rho < -limit ? threshold : step;
    const float new_u = u[x] + step * gx[x] + theta * (ux[x] - ux[x - 1] + (uy[x] - uy_above[x]));
    const float new_v = v[x] + step * gy[x] + theta * (vx[x] - vx[x - 1] + (vy[x] - vy_above[x]));
    const float du = new_u - u[x], dv = new_v - v[x];
    change[x] += du * du + dv * dv;
    u[x] = new_u;
    v[x] = new_v;
  }
  u[width] = u[width - 1];  // so that the gradient across the edge is zero
  v[width] = v[width - 1];
}

WTAL_INLINE void dual_row(const float* flow, const float* below, float* __restrict across,
                          float* __restrict down, int64_t width, float rate) {
#pragma omp simd
  for (int64_t x = 0; x < width; ++x) {
    const float dx = flow[x + 1] - flow[x], dy = below[x] - flow[x];
    const float scale = 1.f / (1.f + rate * std::sqrt(dx * dx + dy * dy));
    across[x] = (across[x] + rate * dx) * scale;
    down[x] = (down[x] + rate * dy) * scale;
  }
}

WTAL_INLINE void dual_rows(Fields& f, int64_t y, int64_t below, float rate) {
  const int64_t width = f.residual.size().width;
  dual_row(f.u.row(y), f.u.row(below), f.ux_dual.row(y), f.uy_dual.row(y), width, rate);
  dual_row(f.v.row(y), f.v.row(below), f.vx_dual.row(y), f.vy_dual.row(y), width, rate);
}

// Sums in this order whatever the width of the vectors is.
WTAL_INLINE double sum_of(const float* values, int64_t count) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane];
  }
  for (; i < count; ++i) lanes[i % kLanes] += values[i];
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

// Updates the flow of one band, and its dual except the last row.
WTAL_INLINE void move_band(Fields& f, int64_t band, const Rates& rates) {
  const auto [height, width] = f.residual.size();
  const int64_t begin = band_begin(height, band), end = band_begin(height, band + 1);
  float* const change = f.change.row(band);
  std::fill(change, change + width, 0.f);
  for (int64_t y = begin; y < end; ++y) {
    move_row(f, y, change, rates.threshold, rates.theta);
    if (y > begin) dual_rows(f, y - 1, y, rates.dual);
  }
  f.changes[band] = sum_of(change, width);
}

// Updates the last row of one band's dual. Every row is updated by the thread that has its band: the rows
// would otherwise travel between the cores in each iteration.
WTAL_INLINE void close_band(Fields& f, int64_t band, const Rates& rates) {
  const int64_t height = f.residual.size().height, end = band_begin(height, band + 1);
  dual_rows(f, end - 1, std::min(end, height - 1), rates.dual);
}

}  // namespace wtal::flow
