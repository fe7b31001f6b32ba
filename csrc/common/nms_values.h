// The rules for each value in soft_nms; the same on CPU and CUDA.
#pragma once
#include <cstdint>

#include "common/host_device.h"

namespace wtal {

// "No entry breaks a rule": every byte is 0x7f, so that memset can write it; larger than every position.
constexpr int kNoFaultByte = 0x7f;
constexpr int64_t kNoFault = 0x7f7f7f7f7f7f7f7f;

template <class T>
WTAL_HOST_DEVICE inline bool is_finite(T value) {
  return value - value == T(0);
}

// offsets [groups + 1]: they start at 0, never decrease and end at count.
WTAL_HOST_DEVICE inline bool offset_is_fine(const int64_t* offsets, int64_t groups, int64_t count,
                                            int64_t g) {
  return (g == 0 ? offsets[0] == 0 : offsets[g] >= offsets[g - 1]) && (g < groups || offsets[g] == count);
}

// A segment whose length overflows would have no valid tIoU.
template <class T>
WTAL_HOST_DEVICE inline bool segment_is_fine(T start, T end) {
  return is_finite(start) & is_finite(end) & (start <= end) & is_finite(end - start);
}

}  // namespace wtal
