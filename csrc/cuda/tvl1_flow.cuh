// The kernels of tvl1_flow. A block computes all iterations of a level for one pair of images at a time, so
// that the stopping rule needs neither the host nor another block. All pairs of a batch are computed in
// parallel. Images and fields are adjacent planes [H, W] in global memory.
#pragma once
#include <cfloat>
#include <cstdint>
#include <utility>

#include "common/sorting_network.h"
#include "common/tvl1_flow_interpolation.h"
#include "cuda/launch.cuh"

namespace wtal::flow {

constexpr int kFlowThreads = 512;
constexpr int kFlowWarps = kFlowThreads / kWarpSize;

__global__ void __launch_bounds__(kFlowThreads)
    to_float_kernel(const uint8_t* __restrict__ pixels, float* __restrict__ out, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kFlowThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kFlowThreads + threadIdx.x; i < count; i += step) {
    out[i] = static_cast<float>(pixels[i]);
  }
}

struct Resize {
  int64_t from_height, from_width, height, width;
  double step_y, step_x;  // source pixels per target pixel
  float gain;             // a factor for every value
};

// Resizes images bilinearly, with pixel centres at half integers and clamped edges:
// [N, from_height, from_width] -> [N, height, width].
__global__ void __launch_bounds__(kFlowThreads)
    resize_kernel(const float* __restrict__ from, float* __restrict__ out, int64_t planes, Resize r) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kFlowThreads, count = planes * r.height * r.width;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kFlowThreads + threadIdx.x; i < count; i += step) {
    const int64_t x = i % r.width, y = i / r.width % r.height, n = i / r.width / r.height;
    const Tap row = tap_of(y, r.step_y, r.from_height), column = tap_of(x, r.step_x, r.from_width);
    const float* upper = from + (n * r.from_height + row.low) * r.from_width;
    const float* lower = from + (n * r.from_height + row.high) * r.from_width;
    const float above = upper[column.low] * (1.f - column.weight) + upper[column.high] * column.weight;
    const float below = lower[column.low] * (1.f - column.weight) + lower[column.high] * column.weight;
    out[i] = (above * (1.f - row.weight) + below * row.weight) * r.gain;
  }
}

__global__ void __launch_bounds__(kFlowThreads)
    interleave_kernel(const float* __restrict__ u, const float* __restrict__ v, float* __restrict__ flow,
                      int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kFlowThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kFlowThreads + threadIdx.x; i < count; i += step) {
    flow[2 * i] = u[i];
    flow[2 * i + 1] = v[i];
  }
}

// One level of the pyramid.
struct Level {
  int height, width;
  int64_t warps, outer, inner;
  float threshold, theta, dual, enough;
};

constexpr int kScratchPlanes = 11;

// The planes of one pair.
struct Planes {
  const float *first, *second;
  float *u, *v, *smooth_u, *smooth_v;
  float *second_x, *second_y;  // the gradient of the second image
  float *image_x, *image_y,
      *residual;  // moved by the flow; its difference to the first, less gradient . flow
  float *ux_dual, *uy_dual, *vx_dual, *vy_dual;
};

__device__ inline Planes planes_of(const float* first, const float* second, float* u, float* v,
                                   float* scratch, int64_t pair, int64_t area) {
  float* own = scratch + pair * kScratchPlanes * area;
  return {first + pair * area, second + pair * area, u + pair * area, v + pair * area, own,
          own + area,          own + 2 * area,       own + 3 * area,  own + 4 * area,  own + 5 * area,
          own + 6 * area,      own + 7 * area,       own + 8 * area,  own + 9 * area,  own + 10 * area};
}

// A coordinate in units of 1/32 pixel, clamped to a range beyond which all taps are outside the image. The
// clamp is on the integer, so that the address is valid for any result of the conversion, even of NaN or of a
// number that is too large.
__device__ inline int64_t fine_of(float at, int64_t size) {
  const int64_t rounded = lrintf(at * 32.f), high = (size + 1) * 32;
  return rounded < -96 ? -96 : rounded > high ? high : rounded;
}

__device__ inline void set_residual(const Planes& p, const Level& level, int i) {
  const int x = i % level.width, y = i / level.width;
  const int64_t fine_x = fine_of(static_cast<float>(x) + p.u[i], level.width);
  const int64_t fine_y = fine_of(static_cast<float>(y) + p.v[i], level.height);
  float across[4], down[4], image = 0.f, gx = 0.f, gy = 0.f;
  cubic_weights(fine_x, across);
  cubic_weights(fine_y, down);
  const int left = static_cast<int>(fine_x >> 5) - 1, top = static_cast<int>(fine_y >> 5) - 1;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (top + j < 0 || top + j >= level.height) continue;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (left + k < 0 || left + k >= level.width) continue;
      const int at = (top + j) * level.width + left + k;
      const float weight = down[j] * across[k];
      image += weight * p.second[at];
      gx += weight * p.second_x[at];
      gy += weight * p.second_y[at];
    }
  }
  p.image_x[i] = gx;
  p.image_y[i] = gy;
  p.residual[i] = image - gx * p.u[i] - gy * p.v[i] - p.first[i];
}

template <int kLow, int kHigh>
__device__ inline void order(float* values) {
  const float a = values[kLow], b = values[kHigh];
  values[kLow] = a < b ? a : b;
  values[kHigh] = a < b ? b : a;
}

template <int kCount, size_t... kPair>
__device__ inline void sort(float* values, std::index_sequence<kPair...>) {
  (order<kNetwork<kCount>.pairs[kPair][0], kNetwork<kCount>.pairs[kPair][1]>(values), ...);
}

template <int kSide>
__device__ inline float median_at(const float* plane, const Level& level, int i) {
  constexpr int kReach = kSide / 2, kCount = kSide * kSide;
  const int x = i % level.width, y = i / level.width;
  float values[kCount];
#pragma unroll
  for (int j = 0; j < kSide; ++j) {
    const int row = min(max(y + j - kReach, 0), level.height - 1) * level.width;
#pragma unroll
    for (int k = 0; k < kSide; ++k) {
      values[j * kSide + k] = plane[row + min(max(x + k - kReach, 0), level.width - 1)];
    }
  }
  sort<kCount>(values, std::make_index_sequence<kNetwork<kCount>.size>{});
  return values[kCount / 2];
}

// Updates the flow of one pixel; returns its squared change.
__device__ inline float move(const Planes& p, const Level& level, int i) {
  const int x = i % level.width, y = i / level.width;
  const float gx = p.image_x[i], gy = p.image_y[i], u = p.u[i], v = p.v[i];
  const float square = gx * gx + gy * gy, rho = p.residual[i] + (gx * u + gy * v);
  const float limit = level.threshold * square;
  float step = square > FLT_EPSILON ? -rho / square : 0.f;
  if (rho > limit) step = -level.threshold;
  if (rho < -limit) step = level.threshold;
  const float ux_left = x > 0 ? p.ux_dual[i - 1] : 0.f, vx_left = x > 0 ? p.vx_dual[i - 1] : 0.f;
  const float uy_above = y > 0 ? p.uy_dual[i - level.width] : 0.f;
  const float vy_above = y > 0 ? p.vy_dual[i - level.width] : 0.f;
  const float new_u = u + step * gx + level.theta * (p.ux_dual[i] - ux_left + (p.uy_dual[i] - uy_above));
  const float new_v = v + step * gy + level.theta * (p.vx_dual[i] - vx_left + (p.vy_dual[i] - vy_above));
  p.u[i] = new_u;
  p.v[i] = new_v;
  return (new_u - u) * (new_u - u) + (new_v - v) * (new_v - v);
}

__device__ inline void move_dual(const float* flow, float* across, float* down, const Level& level, int i) {
  const int x = i % level.width, y = i / level.width;
  const float dx = x + 1 < level.width ? flow[i + 1] - flow[i] : 0.f;
  const float dy = y + 1 < level.height ? flow[i + level.width] - flow[i] : 0.f;
  const float scale = 1.f / (1.f + level.dual * sqrtf(dx * dx + dy * dy));
  across[i] = (across[i] + level.dual * dx) * scale;
  down[i] = (down[i] + level.dual * dy) * scale;
}

// The sum of the values of all threads of a block, in a fixed order. `sums` has one float per warp, and can
// be reused after the next barrier.
__device__ inline float block_sum(float value, float* sums) {
  for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, offset);
  }
  if (threadIdx.x % kWarpSize == 0) sums[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float sum = 0.f;
  for (int warp = 0; warp < kFlowWarps; ++warp) sum += sums[warp];
  return sum;
}

// All warps, outer iterations and inner iterations of a level; u and v [N, H, W] are updated in place.
template <int kMedian>
__global__ void __launch_bounds__(kFlowThreads, 1)
    refine_kernel(const float* __restrict__ first, const float* __restrict__ second, float* u, float* v,
                  float* scratch, int64_t pairs, Level level) {
  __shared__ float sums[kFlowWarps];
  const int area = level.height * level.width, self = static_cast<int>(threadIdx.x);
  for (int64_t pair = blockIdx.x; pair < pairs; pair += gridDim.x) {
    Planes p = planes_of(first, second, u, v, scratch, pair, area);
    for (int i = self; i < area; i += kFlowThreads) {
      const int x = i % level.width, y = i / level.width;
      const int right = x + 1 < level.width ? i + 1 : i, left = x > 0 ? i - 1 : i;
      const int below = y + 1 < level.height ? i + level.width : i, above = y > 0 ? i - level.width : i;
      p.second_x[i] = 0.5f * (p.second[right] - p.second[left]);
      p.second_y[i] = 0.5f * (p.second[below] - p.second[above]);
      p.ux_dual[i] = p.uy_dual[i] = p.vx_dual[i] = p.vy_dual[i] = 0.f;
    }
    __syncthreads();
    for (int64_t warp = 0; warp < level.warps; ++warp) {
      for (int i = self; i < area; i += kFlowThreads) set_residual(p, level, i);
      float error = FLT_MAX;
      for (int64_t outer = 0; outer < level.outer && error > level.enough; ++outer) {
        if constexpr (kMedian > 1) {
          for (int i = self; i < area; i += kFlowThreads) {
            p.smooth_u[i] = median_at<kMedian>(p.u, level, i);
            p.smooth_v[i] = median_at<kMedian>(p.v, level, i);
          }
          // No barrier is needed: until the next one a thread accesses only its own pixels of the smooth
          // planes, and no thread writes the rough planes.
          float* const rough_u = p.u;
          float* const rough_v = p.v;
          p.u = p.smooth_u;
          p.v = p.smooth_v;
          p.smooth_u = rough_u;
          p.smooth_v = rough_v;
        }
        for (int64_t inner = 0; inner < level.inner && error > level.enough; ++inner) {
          float change = 0.f;
          for (int i = self; i < area; i += kFlowThreads) change += move(p, level, i);
          error = block_sum(change, sums);
          for (int i = self; i < area; i += kFlowThreads) {
            move_dual(p.u, p.ux_dual, p.uy_dual, level, i);
            move_dual(p.v, p.vx_dual, p.vy_dual, level, i);
          }
          __syncthreads();
        }
      }
    }
    if (p.u != u + pair * area) {
      for (int i = self; i < area; i += kFlowThreads) {
        p.smooth_u[i] = p.u[i];
        p.smooth_v[i] = p.v[i];
      }
    }
  }
}

}  // namespace wtal::flow
