// The second image and its gradient, warped by the flow: bicubic (A = -0.75), at coordinates rounded to 1/32
// pixel, zero outside, like OpenCV's remap. Image, x and y gradient are in one array with four lanes, so that
// a tap is one load.
#pragma once
#include <cmath>
#include <memory>

#include "common/tvl1_flow_interpolation.h"
#include "cpu/tvl1_flow_planes.h"

namespace wtal::flow {

class alignas(kCacheLine) WarpSource {
 public:
  typedef float Four __attribute__((vector_size(16)));
  // A coordinate far outside is clamped to a position whose 4 x 4 taps are all in the margin and zero.
  static constexpr int64_t kMargin = 4;
  static constexpr int kSteps = kCubicSteps;

  // Before at(), rows() must have been called for all rows.
  explicit WarpSource(Size size)
      : size_(size),
        stride_(size_.width + 2 * kMargin),
        pixels_(new Four[static_cast<size_t>(stride_ * (size_.height + 2 * kMargin))]) {
    for (int i = 0; i < kSteps; ++i) cubic_weights(i, weights_[i]);
  }

  // Fills rows [begin, end), and the margin beside them.
  WTAL_INLINE void rows(const Plane& image, int64_t begin, int64_t end) {
    const int64_t height = size_.height, width = size_.width;
    const int64_t first = begin ? begin : -kMargin, last = end < height ? end : height + kMargin;
    for (int64_t y = first; y < last; ++y) {
      Four* out = &pixels_[(y + kMargin) * stride_];
      if (y < 0 || y >= height) {
        std::fill(out, out + stride_, Four{});
        continue;
      }
      std::fill(out, out + kMargin, Four{});
      std::fill(out + kMargin + width, out + stride_, Four{});
      out += kMargin;
      const float *row = image.row(y), *above = image.row(std::max<int64_t>(y - 1, 0)),
                  *below = image.row(std::min(y + 1, height - 1));
      for (int64_t x = 0; x < width; ++x) {
        const float left = row[std::max<int64_t>(x - 1, 0)], right = row[std::min(x + 1, width - 1)];
        out[x] = Four{row[x], 0.5f * (right - left), 0.5f * (below[x] - above[x]), 0.f};
      }
    }
  }

  // The image, its x derivative and its y derivative at (x, y).
  WTAL_INLINE void at(float x, float y, Four& value) const {
    const int64_t fine_x = fine(x, size_.width), fine_y = fine(y, size_.height);
    const auto &across = weights_[fine_x & (kSteps - 1)], &down = weights_[fine_y & (kSteps - 1)];
    const Four* tap = &pixels_[((fine_y >> 5) - 1 + kMargin) * stride_ + ((fine_x >> 5) - 1 + kMargin)];
    value = Four{};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i, tap += stride_) {
      value += down[i] * (across[0] * tap[0] + across[1] * tap[1] + across[2] * tap[2] + across[3] * tap[3]);
    }
  }

 private:
  // Clamped as an integer, so that the address is inside even if lrintf gets NaN or a number that is too
  // large.
  WTAL_INLINE static int64_t fine(float at, int64_t size) {
    const int64_t rounded = std::lrintf(at * kSteps);
    return std::min(std::max<int64_t>(rounded, -3 * kSteps), (size + 1) * kSteps);
  }

  Size size_;
  int64_t stride_;
  std::unique_ptr<Four[]> pixels_;
  float weights_[kSteps][4];
};

}  // namespace wtal::flow
