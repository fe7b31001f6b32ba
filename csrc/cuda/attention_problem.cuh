// The arguments of all kernels of temporal_attention: sizes, tensors with their strides, and the position of
// each video. This header includes no torch header.
//
// Every kernel accepts a padded batch [B, H, T, D] and rows without padding. Rows are a batch of one element,
// [1, H, R, D], in which videos begin at `starts`. In a padded batch a video is an element and begins at 0.
#pragma once
#include <cstdint>

#include "cuda/launch.cuh"

namespace wtal::attention {

template <class T>
struct View {  // [B, H, T, D] or [B, H, T], with any strides
  const T* data;
  int64_t video, head, row, column;
};

template <class T>
struct Output {  // [B, H, T, D]; D is contiguous
  T* data;
  int64_t video, head, row;
};

// A video in its element of the batch: rows begin .. end - 1. The rows from `end` to limit - 1 belong to no
// video, and their results are zero.
struct Video {
  int64_t begin, end, limit;
};

struct Problem {
  int64_t videos, heads, total, window;  // total: T, or R for rows without padding
  int dim;
  float scale;
  bool rows;               // true: rows without padding; false: a padded batch
  const int64_t* starts;   // [B], ascending; only for rows without padding
  const int64_t* lengths;  // [B]; null: every video of a padded batch has T rows
  int64_t starts_stride, lengths_stride;

  __host__ __device__ int64_t elements() const { return rows ? 1 : videos; }  // elements of the batch

  __device__ int64_t start(int64_t video) const { return clamp(starts[video * starts_stride], total); }

  // Video -1 is the rows before the first video (rows without padding). The result is within the rows for any
  // values in the tensors.
  __device__ Video at(int64_t video) const {
    if (!rows) return {0, lengths ? clamp(lengths[video * lengths_stride], total) : total, total};
    const int64_t begin = video < 0 ? 0 : start(video);
    const int64_t next = video + 1 < videos ? start(video + 1) : total, limit = next > begin ? next : begin;
    const int64_t length = video < 0 ? 0 : clamp(lengths[video * lengths_stride], limit - begin);
    return {begin, begin + length, limit};
  }

 private:
  __device__ static int64_t clamp(int64_t value, int64_t most) {
    return value < 0 ? 0 : value < most ? value : most;
  }
};

// Tells the compiler that a value is the same in all lanes of the warp.
__device__ inline int64_t same_in_warp(int64_t value) { return __shfl_sync(kWholeWarp, value, 0); }

// The last video for which begins(video) holds, or -1. begins must hold up to some video and for none after
// it. All lanes of a warp search together and test 32 videos at a time, so 64 videos need two loads in
// sequence.
template <class F>
__device__ inline int64_t last_video(const Problem& p, const F& begins) {
  int64_t last = -1, open = p.videos;  // last + 1 .. last + open are undecided
  while (open > 0) {
    const int64_t step = (open + kWarpSize - 1) / kWarpSize, place = (threadIdx.x % kWarpSize + 1) * step;
    const unsigned holds = __ballot_sync(kWholeWarp, place <= open && begins(last + place));
    const int64_t passed = __popc(holds) * step;
    last += passed;
    open = open - passed < step - 1 ? open - passed : step - 1;
  }
  return last;
}

}  // namespace wtal::attention
