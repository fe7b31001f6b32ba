// delta for half precision, if rows can be read 16 bytes at a time. The result is that of delta_kernel, but
// each lane reads eight numbers, and a warp computes several rows.
#pragma once
#include <cstdint>
#include <cstring>

#include "cuda/attention_fragments.cuh"

namespace wtal::attention {

// delta[B, H, T] = rowsum(grad_out * out) - grad_lse. Only the values of rows inside a video are used later.
// A block computes 64 rows of one head and one element of the batch, whatever videos they are in.
template <class T, int D>
__global__ void __launch_bounds__(kBlockThreads)
    delta_tiles_kernel(Problem p, View<T> grad_out, View<T> out, View<float> grad_lse, float* delta) {
  constexpr int kChunks = D / 8, kStep = kBlockThreads / kChunks;  // lanes per row; rows per pass
  const int64_t blocks = (p.total + kBlockM - 1) / kBlockM,
                line = blockIdx.x / blocks;  // the index of element and head
  const int64_t element = line / p.heads, head = line - element * p.heads;
  const int64_t first = (blockIdx.x - line * blocks) * kBlockM, end = p.rows ? p.total : p.at(element).end;
  if (first >= end) return;
  const int count = end - first < kBlockM ? static_cast<int>(end - first) : kBlockM;
  const int c = threadIdx.x % kChunks * 8, own = threadIdx.x / kChunks;
  const T* a =
      grad_out.data + element * grad_out.video + head * grad_out.head + (first + own) * grad_out.row + c;
  const T* b = out.data + element * out.video + head * out.head + (first + own) * out.row + c;
  const float* lse_gradient =
      grad_lse.data + element * grad_lse.video + head * grad_lse.head + (first + own) * grad_lse.row;
  float* to = delta + line * p.total + first + own;
  const int64_t a_step = kStep * grad_out.row, b_step = kStep * out.row, lse_step = kStep * grad_lse.row;
#pragma unroll
  for (int r = 0; r < kBlockM; r += kStep, a += a_step, b += b_step, lse_gradient += lse_step) {
    const bool live = own + r < count;
    uint4 bits[2] = {};
    if (live && c < p.dim) {
      bits[0] = *reinterpret_cast<const uint4*>(a);
      bits[1] = *reinterpret_cast<const uint4*>(b);
    }
    T x[8], y[8];
    memcpy(x, &bits[0], sizeof(x));
    memcpy(y, &bits[1], sizeof(y));
    float sum = 0.f;
#pragma unroll
    for (int e = 0; e < 8; ++e) sum += static_cast<float>(x[e]) * static_cast<float>(y[e]);
#pragma unroll
    for (int offset = kChunks / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kWholeWarp, sum, offset);
    if (live && c == 0) to[r] = grad_lse.data ? sum - *lse_gradient : sum;
  }
}

}  // namespace wtal::attention
