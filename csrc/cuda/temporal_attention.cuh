// The kernels of temporal_attention for float32, and delta for every dtype. They use one warp per row,
// float32 sums and scalar loads, without atomics. Every output element has one writer and one order of
// summation, so the same input gives the same bits.
//
// T is the type of the stored numbers, which converts to and from float. The head size D is 32, 64 or 128;
// with a smaller dim the last lanes are idle. This header includes no torch header, so that a host compiler
// can compile it.
#pragma once
#include <cfloat>
#include <cstdint>

#include "cuda/attention_problem.cuh"

namespace wtal::attention {

constexpr int kWarps = 4;  // warps, and so rows, per block
constexpr int kRowThreads = 32 * kWarps;
// Blocks per SM, which allows 64 registers per thread. Without it ptxas spills 8 bytes to save a few
// registers.
constexpr int kRowBlocks = 8;

// One of the B * H * T (or H * R) rows, and the range of rows that it sees, which is also the range that sees
// it.
struct RowPosition {
  int64_t video, head, t, begin, end;
  bool live;
};

__device__ inline RowPosition row_position(const Problem& p, int64_t index) {
  RowPosition row;
  const int64_t line = index / p.total;  // element and head; a 64-bit division is a function call
  row.t = index - line * p.total;
  row.video = line / p.heads;
  row.head = line - row.video * p.heads;
  const Video video =
      p.at(p.rows ? last_video(p, [&](int64_t b) { return p.start(b) <= row.t; }) : row.video);
  row.live = video.begin <= row.t && row.t < video.end;
  row.begin = row.t - video.begin > p.window ? row.t - p.window : video.begin;
  row.end = row.t + p.window + 1 < video.end ? row.t + p.window + 1 : video.end;
  return row;
}

template <class T>
__device__ inline const T* row_pointer(const View<T>& view, const RowPosition& row, int64_t t) {
  return view.data + row.video * view.video + row.head * view.head + t * view.row;
}

template <class T>
__device__ inline T* row_pointer(const Output<T>& output, const RowPosition& row) {
  return output.data + row.video * output.video + row.head * output.head + row.t * output.row;
}

__device__ inline float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// A row of D numbers, distributed over the lanes of a warp: lane l holds elements l, l + 32, ...
template <int D>
struct Lanes {
  float value[D / 32];

  __device__ void clear() {
    for (float& x : value) x = 0.f;
  }
  template <class T>
  __device__ void load(const T* row, int64_t column, int dim) {
    for (int c = 0; c < D / 32; ++c) {
      const int d = threadIdx.x + 32 * c;
      value[c] = d < dim ? static_cast<float>(row[d * column]) : 0.f;
    }
  }
  template <class T>
  __device__ void store(T* row, int dim, float factor) const {
    for (int c = 0; c < D / 32; ++c) {
      const int d = threadIdx.x + 32 * c;
      if (d < dim) row[d] = static_cast<T>(value[c] * factor);
    }
  }
  __device__ float dot(const Lanes& other) const {
    float sum = 0.f;
    for (int c = 0; c < D / 32; ++c) sum += value[c] * other.value[c];
    return warp_sum(sum);
  }
  __device__ void add(const Lanes& other, float factor) {
    for (int c = 0; c < D / 32; ++c) value[c] += other.value[c] * factor;
  }
  __device__ void multiply(float factor) {
    for (float& x : value) x *= factor;
  }
};

// The rows of a warp have the distance of the whole grid, so that a valid grid can have any number of rows.
__device__ inline int64_t first_row() { return static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y; }
__device__ inline int64_t next_row(int64_t row) { return row + static_cast<int64_t>(gridDim.x) * kWarps; }
__device__ inline int64_t rows_of(const Problem& p) { return p.elements() * p.heads * p.total; }

template <class T, int D>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    forward_kernel(Problem p, View<T> q, View<T> k, View<T> v, Output<T> out, float* lse) {
  for (int64_t index = first_row(); index < rows_of(p); index = next_row(index)) {
    const RowPosition row = row_position(p, index);
    Lanes<D> query, key, value, sum;
    sum.clear();
    if (!row.live) {
      sum.store(row_pointer(out, row), p.dim, 1.f);
      if (threadIdx.x == 0) lse[index] = 0.f;
      continue;
    }
    query.load(row_pointer(q, row, row.t), q.column, p.dim);
    query.multiply(p.scale);
    float row_max = -FLT_MAX, weights = 0.f;
    for (int64_t j = row.begin; j < row.end; ++j) {
      key.load(row_pointer(k, row, j), k.column, p.dim);
      value.load(row_pointer(v, row, j), v.column, p.dim);
      const float score = query.dot(key);
      if (score > row_max) {  // the same value in every lane
        const float decay = expf(row_max - score);
        sum.multiply(decay);
        weights *= decay;
        row_max = score;
      }
      const float weight = expf(score - row_max);
      weights += weight;
      sum.add(value, weight);
    }
    sum.store(row_pointer(out, row), p.dim, 1.f / weights);
    if (threadIdx.x == 0) lse[index] = row_max + logf(weights);
  }
}

// delta[B, H, T] = rowsum(grad_out * out) - grad_lse. Only the values of rows inside a video are used later.
template <class T>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    delta_kernel(Problem p, View<T> grad_out, View<T> out, View<float> grad_lse, float* delta) {
  for (int64_t index = first_row(); index < rows_of(p); index = next_row(index)) {
    const RowPosition row = row_position(p, index);
    if (!row.live) continue;
    const T* grad = row_pointer(grad_out, row, row.t);
    const T* value = row_pointer(out, row, row.t);
    float sum = 0.f;
    for (int d = threadIdx.x; d < p.dim; d += 32) {
      sum += static_cast<float>(grad[d * grad_out.column]) * static_cast<float>(value[d * out.column]);
    }
    sum = warp_sum(sum);
    if (grad_lse.data) sum -= *row_pointer(grad_lse, row, row.t);
    if (threadIdx.x == 0) delta[index] = sum;
  }
}

template <class T, int D>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    grad_q_kernel(Problem p, View<T> grad_out, View<T> q, View<T> k, View<T> v, View<float> lse,
                  const float* delta, Output<T> grad_q) {
  for (int64_t index = first_row(); index < rows_of(p); index = next_row(index)) {
    const RowPosition row = row_position(p, index);
    Lanes<D> query, grad, key, value, sum;
    sum.clear();
    if (row.live) {
      query.load(row_pointer(q, row, row.t), q.column, p.dim);
      query.multiply(p.scale);
      grad.load(row_pointer(grad_out, row, row.t), grad_out.column, p.dim);
      const float row_lse = *row_pointer(lse, row, row.t), row_delta = delta[index];
      for (int64_t j = row.begin; j < row.end; ++j) {
        key.load(row_pointer(k, row, j), k.column, p.dim);
        value.load(row_pointer(v, row, j), v.column, p.dim);
        const float weight = expf(query.dot(key) - row_lse);
        sum.add(key, weight * (grad.dot(value) - row_delta));
      }
    }
    sum.store(row_pointer(grad_q, row), p.dim, p.scale);
  }
}

template <class T, int D>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    grad_kv_kernel(Problem p, View<T> grad_out, View<T> q, View<T> k, View<T> v, View<float> lse,
                   const float* delta, Output<T> grad_k, Output<T> grad_v) {
  for (int64_t index = first_row(); index < rows_of(p); index = next_row(index)) {
    const RowPosition row = row_position(p, index);
    Lanes<D> key, value, query, grad, key_sum, value_sum;
    key_sum.clear();
    value_sum.clear();
    if (row.live) {
      key.load(row_pointer(k, row, row.t), k.column, p.dim);
      value.load(row_pointer(v, row, row.t), v.column, p.dim);
      for (int64_t i = row.begin; i < row.end; ++i) {
        query.load(row_pointer(q, row, i), q.column, p.dim);
        query.multiply(p.scale);
        grad.load(row_pointer(grad_out, row, i), grad_out.column, p.dim);
        const float weight = expf(query.dot(key) - *row_pointer(lse, row, i));
        value_sum.add(grad, weight);
        key_sum.add(query, weight * (grad.dot(value) - delta[index - row.t + i]));
      }
    }
    key_sum.store(row_pointer(grad_k, row), p.dim, 1.f);
    value_sum.store(row_pointer(grad_v, row), p.dim, 1.f);
  }
}

}  // namespace wtal::attention
