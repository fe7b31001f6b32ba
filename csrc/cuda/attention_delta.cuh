// delta, which both gradient kernels of temporal_attention read.
#pragma once
#include <cstdint>
#include <cstring>

#include "cuda/attention_fragments.cuh"

namespace wtal::attention {

// delta[B, H, T] = rowsum(grad_out * out) - grad_lse. Only the values of rows inside a video are used later.
// A block computes 64 rows of one head and one element of the batch, whatever videos they are in. Each lane
// multiplies a chunk, and a warp computes several rows.
template <class T, int D>
__global__ void __launch_bounds__(kBlockThreads)
    delta_kernel(Problem p, View<T> grad_out, View<T> out, View<float> grad_lse, bool vectors, float* delta) {
  constexpr int kChunks = D / kChunk<T>, kStep = kBlockThreads / kChunks;  // lanes per row; rows per pass
  const BlockPosition block(p);
  if (!block.live()) return;
  const int c = threadIdx.x % kChunks * kChunk<T>, own = threadIdx.x / kChunks;
  const int64_t first = block.first + own;
  const auto pointer = [&](const auto& view) {
    return view.data + block.element * view.video + block.head * view.head + first * view.row +
           c * view.column;
  };
  const T *a = pointer(grad_out), *b = pointer(out);
  const float* lse_gradient = pointer(grad_lse);
  float* to = delta + (block.element * p.heads + block.head) * p.total + first;
  const int64_t a_step = kStep * grad_out.row, b_step = kStep * out.row, lse_step = kStep * grad_lse.row;
#pragma unroll 4
  for (int r = 0; r < kBlockM; r += kStep, a += a_step, b += b_step, lse_gradient += lse_step) {
    const bool live = first + r < block.end;
    float sum = 0.f;
    if (vectors) {
      uint4 bits[2] = {};
      if (live && c < p.dim) {
        bits[0] = *reinterpret_cast<const uint4*>(a);
        bits[1] = *reinterpret_cast<const uint4*>(b);
      }
      T x[kChunk<T>], y[kChunk<T>];
      memcpy(x, &bits[0], sizeof(x));
      memcpy(y, &bits[1], sizeof(y));
#pragma unroll
      for (int e = 0; e < kChunk<T>; ++e) sum += static_cast<float>(x[e]) * static_cast<float>(y[e]);
    } else if (live) {
#pragma unroll 1
      for (int e = 0; e < kChunk<T> && c + e < p.dim; ++e) {
        sum += static_cast<float>(a[e * grad_out.column]) * static_cast<float>(b[e * out.column]);
      }
    }
#pragma unroll
    for (int offset = kChunks / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(kWholeWarp, sum, offset);
    if (live && c == 0) to[r] = grad_lse.data ? sum - *lse_gradient : sum;
  }
}

}  // namespace wtal::attention
