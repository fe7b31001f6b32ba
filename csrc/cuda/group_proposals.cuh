// Kernels of group_proposals: one thread a cell, which is one (video, class, threshold).
#pragma once
#include "common/grouping.h"
#include "cuda/launch.cuh"

namespace wtal {

template <class T>
__global__ void count_proposals_kernel(Grouping<T> grouping, int64_t* __restrict__ counts) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t cell = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; cell < grouping.cells();
       cell += step) {
    counts[cell] = count_cell(grouping, cell);
  }
}

// rows [cells + 1]: where each cell's proposals begin, as counted.
template <class T>
__global__ void fill_proposals_kernel(Grouping<T> grouping, const int64_t* __restrict__ rows,
                                      int64_t* __restrict__ segments, int64_t* __restrict__ owner,
                                      T* __restrict__ score) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t cell = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; cell < grouping.cells();
       cell += step) {
    if (rows[cell] < rows[cell + 1]) fill_cell(grouping, cell, rows[cell], segments, owner, score);
  }
}

}  // namespace wtal
