// Interval arithmetic on the time axis.
#pragma once
#include "common/host_device.h"

namespace wtal {

// A segment and its length as in ActionFormer: end - start + 1e-6, so that no union is empty.
template <class T>
struct Interval {
  T start, end, length;
};

template <class T>
WTAL_HOST_DEVICE inline Interval<T> make_interval(T start, T end) {
  return {start, end, (end - start) + T(1e-6)};
}

// Temporal intersection over union.
template <class T>
WTAL_HOST_DEVICE inline T tiou(const Interval<T>& a, const Interval<T>& b) {
  const T left = a.start > b.start ? a.start : b.start;
  const T right = a.end < b.end ? a.end : b.end;
  const T gap = right - left;
  const T shared = gap > T(0) ? gap : T(0);
  return shared / ((a.length + b.length) - shared);
}

}  // namespace wtal
