// One inner iteration of TV-L1: flow from the thresholded residual and the dual's divergence, dual from the
// flow's gradient. Row y of the flow needs rows y and y - 1 of the old dual, row y - 1 of the new dual needs
// rows y - 1 and y of the new flow: one pass over the image does both, in place.
#pragma once
#include <cmath>

#include "cpu/tvl1_flow_planes.h"

namespace wtal::flow {

struct Fields {
  Plane u, v;  // the flow in x and in y
  Plane ux_dual, uy_dual, vx_dual, vy_dual;
  Plane image_x, image_y,
      residual;  // gradient of the warped image; its difference to the first one, less gradient . flow
  std::vector<float> zeros, change;  // a row each

  explicit Fields(Size size)
      : ux_dual(size),
        uy_dual(size),
        vx_dual(size),
        vy_dual(size),
        image_x(size),
        image_y(size),
        residual(size),
        zeros(size.width, 0.f),
        change(size.width) {}
};

// Row y of the flow. The squared change is added up column by column.
WTAL_INLINE void move_row(Fields& f, int64_t y, float threshold, float theta) {
  const int64_t width = f.residual.size().width;
  float* __restrict u = f.u.row(y), * __restrict v = f.v.row(y), * __restrict change = f.change.data();
  const float *gx = f.image_x.row(y), *gy = f.image_y.row(y), *constant = f.residual.row(y);
  const float *ux = f.ux_dual.row(y), *uy = f.uy_dual.row(y), *vx = f.vx_dual.row(y), *vy = f.vy_dual.row(y);
  const float* uy_above = y ? f.uy_dual.row(y - 1) : f.zeros.data();
  const float* vy_above = y ? f.vy_dual.row(y - 1) : f.zeros.data();
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

// Returns the sum of the flow's squared changes.
WTAL_INLINE float iterate(Fields& f, float threshold, float theta, float rate) {
  const int64_t height = f.residual.size().height;
  std::fill(f.change.begin(), f.change.end(), 0.f);
  for (int64_t y = 0; y < height; ++y) {
    move_row(f, y, threshold, theta);
    if (y) dual_rows(f, y - 1, y, rate);
  }
  dual_rows(f, height - 1, height - 1, rate);
  double sum = 0;
  for (const float change : f.change) sum += change;
  return static_cast<float>(sum);
}

}  // namespace wtal::flow
