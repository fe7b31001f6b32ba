// temporal_attention and its gradients, on tensor cores. A block computes 64 rows of one video and head. It
// loops over the tiles of the other side that these rows see, and copies the next tile while it computes the
// current one. Tiles outside the window or the video are not loaded. Every output has one writer and one
// order of summation.
#pragma once
#include <cfloat>
#include <cmath>

#include "cuda/attention_fragments.cuh"
#include "cuda/attention_mask.cuh"
#include "cuda/attention_products.cuh"

namespace wtal::attention {

constexpr float kLog2e = 1.44269504088896340736f, kLn2 = 0.69314718055994530942f;

// The rows of the other side in a tile. A block has kBlockM rows of its own side.
template <class T, int D>
constexpr int kForwardBlockN = D * sizeof(T) >= 256 ? 32 : 64;
template <class T, int D>
constexpr int kBackwardBlockN = sizeof(T) == 4 && D >= 64 ? 16 : 32;

// The smallest number of blocks of the forward kernel per SM; 0: ptxas decides. At D = 128 on an A100, ptxas
// would spill registers to make a fourth block possible, but there is not enough shared memory for it.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 800
template <class T, int D>
constexpr int kForwardBlocks = sizeof(T) == 2 && D == 128 ? 3 : 0;
#else
template <class T, int D>
constexpr int kForwardBlocks = 0;
#endif

// The same for the gradients. In float32 at D = 128, ptxas would save registers for blocks that shared memory
// leaves no room for, and spill some.
template <class T, int D>
constexpr int kGradientBlocks = sizeof(T) == 4 && D == 128 ? 2 : 0;

template <class T, int D>  // with rows of 256 bytes, two blocks per SM on an RTX 30 instead of one
using ForwardLayout = Layout<T, D, D * sizeof(T) == 256>;

// Swizzled in half precision at D = 64: three blocks instead of two; grad_k and grad_v would spill. In
// float32 at D = 32: three instead of two, for grad_k and grad_v there is no room; at 64: two instead of one;
// at 128 padded rows of grad_k and grad_v would not fit.
template <class T, int D, bool kOfKeys>
using BackwardLayout = Layout<T, D, (D * sizeof(T) == 128 && !kOfKeys) || (sizeof(T) == 4 && D >= 64)>;

template <class T, int D>
constexpr int forward_shared_bytes() {
  return (kBlockM + 4 * kForwardBlockN<T, D>)*ForwardLayout<T, D>::kPitch * static_cast<int>(sizeof(T));
}
template <class T, int D, bool kOfKeys>
constexpr int backward_shared_bytes() {
  constexpr int kBlockN = kBackwardBlockN<T, D>;
  constexpr int kRows = 2 * kBlockM + 4 * kBlockN, kStatistics = kOfKeys ? 4 * kBlockN : 0;
  return kRows * BackwardLayout<T, D, kOfKeys>::kPitch * static_cast<int>(sizeof(T)) +
         kStatistics * static_cast<int>(sizeof(float));
}

template <class T>
struct Inputs {
  View<T> q, k, v;
  bool vectors;  // whether 16-byte copies are possible for all tensors
};

__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// One step of the online softmax: s -> 2^(s - row_max). For the two rows of a lane, it updates row_max and
// sum (the lane's part of it), and multiplies earlier sums by the decay.
template <int N, int kDims>
__device__ inline void online_softmax(float (&s)[N][4], float (&row_max)[2], float (&sum)[2],
                                      float (&out)[kDims][4]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = row_max[half];
#pragma unroll
    for (int n = 0; n < N; ++n) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    top = quad_max(top);
    const float decay = ptx::exp2_approx(row_max[half] - top);
    row_max[half] = top;
    sum[half] *= decay;
#pragma unroll
    for (int d = 0; d < kDims; ++d) {
      out[d][2 * half] *= decay;
      out[d][2 * half + 1] *= decay;
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        s[n][e] = ptx::exp2_approx(s[n][e] - top);
        sum[half] += s[n][e];
      }
    }
  }
}

template <class T, int D>
__global__ void __launch_bounds__(kBlockThreads, kForwardBlocks<T, D>)
    forward_kernel(Problem p, Inputs<T> x, Output<T> out, float* lse) {
  using L = ForwardLayout<T, D>;
  constexpr int kBlockN = kForwardBlockN<T, D>, N = kBlockN / 8;
  const BlockPosition block(p);
  if (block.idle()) return;
  T* q = ptx::dynamic_shared<T>();
  T* stages = q + kBlockM * L::kPitch;  // the stages of k and v
  const int warp = threadIdx.x / 32;
  const int first = block.first + 16 * warp;
  float sums[D / 8][4] = {}, row_max[2] = {-FLT_MAX, -FLT_MAX}, sum[2] = {};

  if (block.live()) {
    const VisibleRange keys(p, block.begin, block.end, block.first, block.last);
    const auto load = [&](int j, int stage) {
      T* k = stages + stage * 2 * kBlockN * L::kPitch;
      load_rows<L, kBlockN>(k, head_rows(x.k, block.element, block.head, x.vectors), j, keys.end, p.dim);
      load_rows<L, kBlockN>(k + kBlockN * L::kPitch, head_rows(x.v, block.element, block.head, x.vectors), j,
                            keys.end, p.dim);
      ptx::cp_async_commit();
    };
    load_rows<L, kBlockM>(q, head_rows(x.q, block.element, block.head, x.vectors), block.first, block.end,
                          p.dim);
    load(keys.begin, 0);
    int stage = 0;
    for (int j = keys.begin; j < keys.end; j += kBlockN, stage ^= 1) {
      if (j + kBlockN < keys.end) {
        load(j + kBlockN, stage ^ 1);
        ptx::cp_async_wait_group<1>();
      } else {
        ptx::cp_async_wait_group<0>();
      }
      __syncthreads();
      const TileMask mask(p, first, j, kBlockN, block.end);
      if (!mask.none) {
        const T* k = stages + stage * 2 * kBlockN * L::kPitch;
        float s[N][4];
        multiply_rows<L>(s, q + 16 * warp * L::kPitch, k);
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) s[n][e] *= p.scale * kLog2e;
        }
        if (!mask.all) apply_mask(s, p, first, j, block.end);
        online_softmax(s, row_max, sum, sums);
        add_weighted_rows<L>(sums, s, k + kBlockN * L::kPitch);
      }
      __syncthreads();
    }
  }

  for (float& part : sum) part = quad_sum(part);
  T* to = out.data + block.element * out.video + block.head * out.head;
  store_rows<T, D>(to, out.row, first, block.limit, block.end, p.dim, sums, 1.f / sum[0], 1.f / sum[1]);
  const LanePosition position;
  if (position.column == 0) {
    for (int half = 0; half < 2; ++half) {
      const int row = first + position.row + 8 * half;
      if (row >= block.limit) continue;
      lse[(block.element * p.heads + block.head) * p.total + row] =
          row < block.end ? (row_max[half] + log2f(sum[half])) * kLn2 : 0.f;
    }
  }
}

template <class T>
struct GradientInputs {
  View<T> q, k, v, grad_out;
  View<float> lse;
  const float* delta;  // [B, H, T]: rowsum(grad_out * out) - grad_lse
  bool vectors;
};

// The rows of the block are queries or, for kOfKeys, keys. Queries get grad_q in grad_qk, and grad_v is not
// used. Keys get grad_k in grad_qk, and grad_v; the scores are then transposed, s[key, query], and
// log-sum-exp and delta belong to the columns.
template <class T, int D, bool kOfKeys>
__global__ void __launch_bounds__(kBlockThreads, kGradientBlocks<T, D>)
    gradient_kernel(Problem p, GradientInputs<T> x, Output<T> grad_qk, Output<T> grad_v) {
  using L = BackwardLayout<T, D, kOfKeys>;
  constexpr int kBlockN = kBackwardBlockN<T, D>, N = kBlockN / 8, kStage = 2 * kBlockN * L::kPitch;
  const BlockPosition block(p);
  if (block.idle()) return;
  T* own = ptx::dynamic_shared<T>();            // k or q
  T* own_other = own + kBlockM * L::kPitch;     // v or grad_out
  T* stages = own_other + kBlockM * L::kPitch;  // the stages of q and grad_out, or of k and v
  float* statistics =
      reinterpret_cast<float*>(stages + 2 * kStage);  // lse and delta of the columns, two stages
  const int warp = threadIdx.x / 32;
  const int first = block.first + 16 * warp;
  const LanePosition position;
  float sums_qk[D / 8][4] = {}, sums_v[kOfKeys ? D / 8 : 1][4] = {};

  if (block.live()) {
    // Computed where they are used: all these pointers in registers would make ptxas spill some at D = 128.
    const auto rows = [&](const View<T>& view) {
      return head_rows(view, block.element, block.head, x.vectors);
    };
    const auto lse = [&](int t) {
      return x.lse.data[block.element * x.lse.video + block.head * x.lse.head + t * x.lse.row] * kLog2e;
    };
    const auto delta = [&](int t) { return x.delta[(block.element * p.heads + block.head) * p.total + t]; };
    const VisibleRange range(p, block.begin, block.end, block.first, block.last);
    const auto load = [&](int j, int stage) {
      T* to = stages + stage * kStage;
      load_rows<L, kBlockN>(to, rows(kOfKeys ? x.q : x.k), j, range.end, p.dim);
      load_rows<L, kBlockN>(to + kBlockN * L::kPitch, rows(kOfKeys ? x.grad_out : x.v), j, range.end, p.dim);
      ptx::cp_async_commit();
      if (kOfKeys && threadIdx.x < kBlockN) {
        const int t = j + static_cast<int>(threadIdx.x);
        statistics[2 * stage * kBlockN + threadIdx.x] = t < range.end ? lse(t) : 0.f;
        statistics[(2 * stage + 1) * kBlockN + threadIdx.x] = t < range.end ? delta(t) : 0.f;
      }
    };
    load_rows<L, kBlockM>(own, rows(kOfKeys ? x.k : x.q), block.first, block.end, p.dim);
    load_rows<L, kBlockM>(own_other, rows(kOfKeys ? x.v : x.grad_out), block.first, block.end, p.dim);
    float row_lse[2] = {}, row_delta[2] = {};
    if (!kOfKeys) {
      for (int half = 0; half < 2; ++half) {
        const int t = first + position.row + 8 * half;
        if (t < block.end) row_lse[half] = lse(t), row_delta[half] = delta(t);
      }
    }
    load(range.begin, 0);
    int stage = 0;
    for (int j = range.begin; j < range.end; j += kBlockN, stage ^= 1) {
      if (j + kBlockN < range.end) {
        load(j + kBlockN, stage ^ 1);
        ptx::cp_async_wait_group<1>();
      } else {
        ptx::cp_async_wait_group<0>();
      }
      __syncthreads();
      const TileMask mask(p, first, j, kBlockN, block.end);
      if (!mask.none) {
        const T* tile = stages + stage * kStage;
        const float* column_lse = statistics + 2 * stage * kBlockN;
        float s[N][4], dp[N][4];
        multiply_rows<L>(s, own + 16 * warp * L::kPitch, tile);
        multiply_rows<L>(dp, own_other + 16 * warp * L::kPitch, tile + kBlockN * L::kPitch);
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int column = 8 * n + position.column + e % 2;
            s[n][e] = s[n][e] * (p.scale * kLog2e) - (kOfKeys ? column_lse[column] : row_lse[e / 2]);
          }
        }
        if (!mask.all) apply_mask(s, p, first, j, block.end);
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int column = 8 * n + position.column + e % 2;
            s[n][e] = ptx::exp2_approx(s[n][e]);
            dp[n][e] = s[n][e] * (dp[n][e] - (kOfKeys ? column_lse[kBlockN + column] : row_delta[e / 2]));
          }
        }
        add_weighted_rows<L>(sums_qk, dp, tile);
        if constexpr (kOfKeys) add_weighted_rows<L>(sums_v, s, tile + kBlockN * L::kPitch);
      }
      __syncthreads();
    }
  }

  const auto target = [&](const Output<T>& to) {
    return to.data + block.element * to.video + block.head * to.head;
  };
  store_rows<T, D>(target(grad_qk), grad_qk.row, first, block.limit, block.end, p.dim, sums_qk, p.scale,
                   p.scale);
  if constexpr (kOfKeys) {
    store_rows<T, D>(target(grad_v), grad_v.row, first, block.limit, block.end, p.dim, sums_v, 1.f, 1.f);
  }
}

}  // namespace wtal::attention
