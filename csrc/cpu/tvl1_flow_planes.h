// The float images of tvl1_flow: rows have a margin, so that a loop over a row needs no check for its ends.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

#include "common/tvl1_flow_args.h"
#include "cpu/inline.h"

namespace wtal::flow {

// Threads read the descriptions of planes on the stack of one of them. A cache line that also had something
// that this thread writes would travel between their cores all the time.
constexpr size_t kCacheLine = 64;

// An image [H, W] with kMargin floats before each row and at least as many after it. Its values are not
// initialised, so that the threads that use the rows first also pay for the memory.
class alignas(kCacheLine) Plane {
 public:
  static constexpr int64_t kMargin = 16;

  Plane() = default;
  explicit Plane(Size size)
      : size_(size),
        stride_((size.width + 2 * kMargin + 15) / 16 * 16),
        values_(static_cast<float*>(operator new(sizeof(float) * static_cast<size_t>(stride_ * size.height),
                                                 kAligned))) {}
  Size size() const { return size_; }
  float* row(int64_t y) { return values_.get() + y * stride_ + kMargin; }
  const float* row(int64_t y) const { return values_.get() + y * stride_ + kMargin; }

  // Zeros in rows [begin, end), margins included.
  void clear(int64_t begin, int64_t end) {
    std::fill(row(begin) - kMargin, row(begin) - kMargin + (end - begin) * stride_, 0.f);
  }

 private:
  static constexpr std::align_val_t kAligned{kCacheLine};
  struct Delete {
    void operator()(float* values) const { operator delete(values, kAligned); }
  };

  Size size_;
  int64_t stride_ = 0;
  std::unique_ptr<float, Delete> values_;
};

}  // namespace wtal::flow
