// temporal_attention and its gradients for half precision, on tensor cores. A block computes 64 rows of one
// video and head. It loops over the tiles of the other side that these rows see, and copies the next tile
// while it computes the current one. Tiles outside the window or the video are not loaded. Every output has
// one writer and one order of summation.
#pragma once
#include <cfloat>
#include <cmath>

#include "cuda/attention_fragments.cuh"
#include "cuda/attention_mask.cuh"

namespace wtal::attention {

constexpr float kLog2e = 1.44269504088896340736f, kLn2 = 0.69314718055994530942f;

// The rows of the other side in a tile. A block has kBlockM rows of its own side.
template <int D>
constexpr int kForwardBlockN = D == 128 ? 32 : 64;
constexpr int kBackwardBlockN = 32;

// The smallest number of blocks of the forward kernel per SM; 0: ptxas decides. At D = 128 on an A100, ptxas
// would spill registers to make a fourth block possible, but there is not enough shared memory for it.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 800
template <int D>
constexpr int kForwardBlocks = D == 128 ? 3 : 0;
#else
template <int D>
constexpr int kForwardBlocks = 0;
#endif

template <int D>
using ForwardLayout = Layout<D, D == 128>;  // two blocks per SM on an RTX 30 instead of one
template <int D, bool kOfKeys>
using BackwardLayout = Layout<D, D == 64 && !kOfKeys>;  // three instead of two; grad_k and grad_v would spill

template <class T, int D>
constexpr int forward_shared_bytes() {
  return (kBlockM + 4 * kForwardBlockN<D>)*ForwardLayout<D>::kPitch * static_cast<int>(sizeof(T));
}
template <class T, int D, bool kOfKeys>
constexpr int backward_shared_bytes() {
  constexpr int kRows = 2 * kBlockM + 4 * kBackwardBlockN, kStatistics = kOfKeys ? 4 * kBackwardBlockN : 0;
  return kRows * BackwardLayout<D, kOfKeys>::kPitch * static_cast<int>(sizeof(T)) +
         kStatistics * static_cast<int>(sizeof(float));
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
  int64_t element, head;
  int first, last;        // last: the last of these rows in the video
  int begin, end, limit;  // as in Video
  __device__ explicit BlockPosition(const Problem& p) {
    const int64_t blocks = blocks_of_head(p), index = blockIdx.x % blocks;
    head = blockIdx.x / blocks % p.heads;
    element = blockIdx.x / blocks / p.heads;
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
__global__ void __launch_bounds__(kBlockThreads, kForwardBlocks<D>)
    forward_tiles_kernel(Problem p, Inputs<T> x, Output<T> out, float* lse) {
  using L = ForwardLayout<D>;
  constexpr int kBlockN = kForwardBlockN<D>, N = kBlockN / 8;
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
      load_rows<T, L, kBlockN>(k, head_rows(x.k, block.element, block.head, x.vectors), j, keys.end, p.dim);
      load_rows<T, L, kBlockN>(k + kBlockN * L::kPitch, head_rows(x.v, block.element, block.head, x.vectors),
                               j, keys.end, p.dim);
      ptx::cp_async_commit();
    };
    load_rows<T, L, kBlockM>(q, head_rows(x.q, block.element, block.head, x.vectors), block.first, block.end,
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
        multiply_rows<T, L>(s, q + 16 * warp * L::kPitch, k);
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) s[n][e] *= p.scale * kLog2e;
        }
        if (!mask.all) apply_mask(s, p, first, j, block.end);
        online_softmax(s, row_max, sum, sums);
        add_weighted_rows<T, L>(sums, s, k + kBlockN * L::kPitch);
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

// The rows of the block are keys (grad_k = first, grad_v = second) or queries (grad_q = first, second is not
// used). If they are keys, the scores are transposed, s[key, query], and log-sum-exp and delta belong to the
// columns.
template <class T, int D, bool kOfKeys>
__global__ void __launch_bounds__(kBlockThreads)
    gradient_tiles_kernel(Problem p, GradientInputs<T> x, Output<T> first_grad, Output<T> second_grad) {
  using L = BackwardLayout<D, kOfKeys>;
  constexpr int kBlockN = kBackwardBlockN, N = kBlockN / 8, kStage = 2 * kBlockN * L::kPitch;
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
  float sums[D / 8][4] = {}, other_sums[kOfKeys ? D / 8 : 1][4] = {};

  if (block.live()) {
    const HeadRows<T> q = head_rows(x.q, block.element, block.head, x.vectors);
    const HeadRows<T> k = head_rows(x.k, block.element, block.head, x.vectors);
    const HeadRows<T> v = head_rows(x.v, block.element, block.head, x.vectors);
    const HeadRows<T> grad_out = head_rows(x.grad_out, block.element, block.head, x.vectors);
    const float* lse = x.lse.data + block.element * x.lse.video + block.head * x.lse.head;
    const float* delta = x.delta + (block.element * p.heads + block.head) * p.total;
    const VisibleRange range(p, block.begin, block.end, block.first, block.last);
    const auto load = [&](int j, int stage) {
      T* to = stages + stage * kStage;
      load_rows<T, L, kBlockN>(to, kOfKeys ? q : k, j, range.end, p.dim);
      load_rows<T, L, kBlockN>(to + kBlockN * L::kPitch, kOfKeys ? grad_out : v, j, range.end, p.dim);
      ptx::cp_async_commit();
      if (kOfKeys && threadIdx.x < kBlockN) {
        const int t = j + static_cast<int>(threadIdx.x);
        statistics[2 * stage * kBlockN + threadIdx.x] = t < range.end ? lse[t * x.lse.row] * kLog2e : 0.f;
        statistics[(2 * stage + 1) * kBlockN + threadIdx.x] = t < range.end ? delta[t] : 0.f;
      }
    };
    load_rows<T, L, kBlockM>(own, kOfKeys ? k : q, block.first, block.end, p.dim);
    load_rows<T, L, kBlockM>(own_other, kOfKeys ? v : grad_out, block.first, block.end, p.dim);
    float row_lse[2] = {}, row_delta[2] = {};
    if (!kOfKeys) {
      for (int half = 0; half < 2; ++half) {
        const int t = first + position.row + 8 * half;
        if (t < block.end) row_lse[half] = lse[t * x.lse.row] * kLog2e, row_delta[half] = delta[t];
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
        multiply_rows<T, L>(s, own + 16 * warp * L::kPitch, tile);
        multiply_rows<T, L>(dp, own_other + 16 * warp * L::kPitch, tile + kBlockN * L::kPitch);
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
        add_weighted_rows<T, L>(sums, dp, tile);
        if constexpr (kOfKeys) add_weighted_rows<T, L>(other_sums, s, tile + kBlockN * L::kPitch);
      }
      __syncthreads();
    }
  }

  const auto target = [&](const Output<T>& to) {
    return to.data + block.element * to.video + block.head * to.head;
  };
  store_rows<T, D>(target(first_grad), first_grad.row, first, block.limit, block.end, p.dim, sums, p.scale,
                   p.scale);
  if constexpr (kOfKeys) {
    store_rows<T, D>(target(second_grad), second_grad.row, first, block.limit, block.end, p.dim, other_sums,
                     1.f, 1.f);
  }
}

}  // namespace wtal::attention
