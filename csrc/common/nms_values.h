// What soft_nms expects of each value; the same on CPU and CUDA.
#pragma once
#include <cstdint>

#include "common/host_device.h"

namespace wtal {

// "No entry is at fault": every byte 0x7f, so that a memset writes it, and above every position.
constexpr int kNoFaultByte = 0x7f;
constexpr int64_t kNoFault = 0x7f7f7f7f7f7f7f7f;

template <class T>
WTAL_HOST_DEVICE inline bool is_finite(T value) {
  return value - value == T(0);
}

// offsets [groups + 1]: start at 0, never fall, end at count.
WTAL_HOST_DEVICE inline bool offset_is_fine(const int64_t* offsets, int64_t groups, int64_t count,
                                            int64_t g) {
  return (g == 0 ? offsets[0] == 0 : offsets[g] >= offsets[g - 1]) && (g < groups || offsets[g] == count);
}

// A segment whose length overflows would have no tIoU.
template <class T>
WTAL_HOST_DEVICE inline bool segment_is_fine(T start, T end) {
  return is_finite(start) & is_finite(end) & (start <= end) & is_finite(end - start);
}

}  // namespace wtal
