// What all kernels of temporal_attention are told: sizes, and tensors with their strides. No torch header in
// here.
#pragma once
#include <cstdint>

namespace wtal::attention {

template <class T>
struct View {  // [B, H, T, D] or [B, H, T], any strides
  const T* data;
  int64_t video, head, row, column;
};

template <class T>
struct Output {  // [B, H, T, D], D contiguous
  T* data;
  int64_t video, head, row;
};

struct Problem {
  int64_t videos, heads, total, window;
  int dim;
  float scale;
  const int64_t* lengths;  // [B], or null
  int64_t lengths_stride;

  __device__ int64_t length(int64_t video) const {
    const int64_t length = lengths ? lengths[video * lengths_stride] : total;
    return length < total ? length : total;
  }
};

}  // namespace wtal::attention
