// The checked arguments of tvl1_flow, and the sizes of its pyramid.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/shape.h"

namespace wtal::flow {

struct Size {
  int64_t height = 0, width = 0;
  int64_t area() const { return height * width; }
};

struct Settings {
  double tau, lambda, theta, epsilon, scale_step;
  int64_t scales, warps, inner, outer, median;

  float threshold() const { return static_cast<float>(lambda * theta); }
  float dual_rate() const { return static_cast<float>(tau / theta); }
  // Iterations end at this squared change, summed over the whole image.
  float enough(Size size) const {
    return static_cast<float>(epsilon * epsilon * static_cast<double>(size.area()));
  }
};

constexpr int64_t kSmallestSide = 16;  // levels after the first have no shorter side

// The sizes of the levels, the finest first.
inline std::vector<Size> pyramid_sizes(Size size, const Settings& s) {
  std::vector<Size> sizes{size};
  while (static_cast<int64_t>(sizes.size()) < s.scales) {
    const Size last = sizes.back();
    const Size next{std::lrint(static_cast<double>(last.height) * s.scale_step),
                    std::lrint(static_cast<double>(last.width) * s.scale_step)};
    if (std::min(next.height, next.width) < kSmallestSide) break;
    sizes.push_back(next);
  }
  return sizes;
}

// Checks the bits, because the CPU source is compiled for finite numbers only and std::isfinite is always
// true.
inline bool finite(double value) { return (std::bit_cast<uint64_t>(value) >> 52 & 0x7ff) != 0x7ff; }

inline void check_args(const torch::stable::Tensor& first, const torch::stable::Tensor& second,
                       const Settings& s) {
  using torch::headeronly::ScalarType;
  STD_TORCH_CHECK(first.scalar_type() == ScalarType::Byte && second.scalar_type() == ScalarType::Byte,
                  "tvl1_flow: first and second have dtypes ",
                  torch::headeronly::toString(first.scalar_type()), " and ",
                  torch::headeronly::toString(second.scalar_type()), ", expected uint8");
  STD_TORCH_CHECK(first.dim() == 3, "tvl1_flow: first has shape ", shape_of(first), ", expected [N, H, W]");
  STD_TORCH_CHECK(shape_of(first) == shape_of(second), "tvl1_flow: second has shape ", shape_of(second),
                  ", expected that of first, ", shape_of(first));
  STD_TORCH_CHECK(first.device() == second.device(), "tvl1_flow: second is not on the device of first");
  STD_TORCH_CHECK(s.median == 1 || s.median == 3 || s.median == 5, "tvl1_flow: median is ", s.median,
                  ", expected 1, 3 or 5");
  STD_TORCH_CHECK(s.theta > 0 && s.tau > 0 && s.lambda > 0 && finite(s.tau / s.theta) &&
                      finite(s.lambda * s.theta) && finite(s.epsilon) && s.epsilon >= 0,
                  "tvl1_flow: tau, lam, theta and epsilon are ", s.tau, ", ", s.lambda, ", ", s.theta,
                  " and ", s.epsilon, ", expected finite positive numbers (epsilon may be 0)");
  STD_TORCH_CHECK(finite(s.scale_step) && s.scale_step > 0 && s.scale_step < 1, "tvl1_flow: scale_step is ",
                  s.scale_step, ", expected a number between 0 and 1");
  STD_TORCH_CHECK(s.scales >= 1 && s.warps >= 1 && s.inner >= 1 && s.outer >= 1,
                  "tvl1_flow: scales, warps, inner and outer are ", s.scales, ", ", s.warps, ", ", s.inner,
                  " and ", s.outer, ", expected at least 1");
}

}  // namespace wtal::flow
