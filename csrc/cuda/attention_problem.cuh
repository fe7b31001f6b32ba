// The arguments of all kernels of temporal_attention: sizes, tensors with their strides, the position of each
// video, and the rows of each block. This header includes no torch header, so that a host compiler can
// compile it.
//
// Every kernel accepts a padded batch [B, H, T, D] and rows without padding. Rows are a batch of one element,
// [1, H, R, D], in which videos begin at `starts`. In a padded batch a video is an element and begins at 0.
#pragma once
#include <cstdint>

#include "cuda/launch.cuh"

namespace wtal::attention {

constexpr int kBlockM = 64, kBlockThreads = 128;
constexpr int64_t kMostRows = 1 << 29;  // p.total is less, so rows, distances and windows fit in 32 bits

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

// The blocks of a head, which are adjacent in the one-dimensional grid. For rows without padding, the blocks
// of a video begin at first_block(video). This is a closed formula, so that no prefix sum of tiles is needed.
// The next video begins at row begin' >= begin. With [x] for x rounded down, its first block comes
// [begin' / 64] - [begin / 64] + 1 blocks later. This is at least the number of tiles of the video,
// (begin' - begin) / 64 rounded up. At most one block per video has no work, and it ends immediately.
__host__ __device__ inline int64_t blocks_of_head(const Problem& p) {
  return p.rows ? p.total / kBlockM + p.videos + 1 : (p.total + kBlockM - 1) / kBlockM;
}
__device__ inline int64_t first_block(int64_t video, int64_t begin) { return begin / kBlockM + video + 1; }

// The 64 rows of a block, first .. first + 63, if they are before `limit`. Row numbers are 32-bit, because
// there are fewer than kMostRows rows.
struct BlockPosition {
  int element, head;
  int first, last;        // last: the last of these rows in the video
  int begin, end, limit;  // as in Video
  __device__ explicit BlockPosition(const Problem& p) {
    // The grid has fewer than 2^31 blocks, so none of this needs a division of 64 bits, which is a function.
    const auto blocks = static_cast<unsigned>(blocks_of_head(p)), line = blockIdx.x / blocks,
               heads = static_cast<unsigned>(p.heads), index = blockIdx.x - line * blocks;
    element = static_cast<int>(line / heads);
    head = static_cast<int>(line - element * heads);
    if (p.rows) {
      const int64_t b = last_video(p, [&](int64_t b) { return first_block(b, p.start(b)) <= index; });
      set(p.at(b));
      first = begin + static_cast<int>(index - first_block(b, begin)) * kBlockM;
      // These values are the same in all lanes. If the compiler knows it, it needs fewer registers.
      for (int* row : {&first, &begin, &end, &limit}) *row = __shfl_sync(kWholeWarp, *row, 0);
    } else {
      set(p.at(element));
      first = static_cast<int>(index) * kBlockM;
    }
    last = first + kBlockM < end ? first + kBlockM - 1 : end - 1;
  }
  __device__ bool live() const { return first < end; }
  // Starts that are not ascending could lead to rows before the video.
  __device__ bool idle() const { return first < begin || first >= limit; }

 private:
  __device__ void set(const Video& video) {
    begin = static_cast<int>(video.begin);
    end = static_cast<int>(video.end);
    limit = static_cast<int>(video.limit);
  }
};

}  // namespace wtal::attention
