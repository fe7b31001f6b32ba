// The float images of tvl1_flow: rows have a margin, so that a loop over a row needs no check for its ends.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/tvl1_flow_args.h"
#include "cpu/inline.h"

namespace wtal::flow {

// An image [H, W] with kMargin floats before each row and at least as many after it, initially zero.
class Plane {
 public:
  static constexpr int64_t kMargin = 16;

  Plane() = default;
  explicit Plane(Size size)
      : size_(size),
        stride_((size.width + 2 * kMargin + 15) / 16 * 16),
        values_(static_cast<size_t>(stride_ * size.height), 0.f) {}
  Size size() const { return size_; }
  float* row(int64_t y) { return values_.data() + y * stride_ + kMargin; }
  const float* row(int64_t y) const { return values_.data() + y * stride_ + kMargin; }

 private:
  Size size_;
  int64_t stride_ = 0;
  std::vector<float> values_;
};

}  // namespace wtal::flow
