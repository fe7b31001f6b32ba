// The two products of tiles of temporal_attention's tensor-core kernels, for half precision and for float32.
//
// Half precision is one m16n8k16 instruction. A float32 number has more digits than tensor cores multiply: it
// is the sum of a big and a small TF32 number, and a product is three m16n8k8 instructions, big * big + big *
// small + small * big. What is left out, small * small, is at most 2^-22 of the product ("3xTF32").
#pragma once
#include <cstdint>
#include <cstring>

#include "cuda/attention_fragments.cuh"
#include "cuda/ptx.cuh"

namespace wtal::attention {

// N registers of an operand, as the instructions read them.
template <class T, int N>
struct Operand {
  uint32_t bits[N];
  __device__ void set(int i, uint32_t number) { bits[i] = number; }
};

// big is the number rounded to TF32, and small is what remains of it, cut off. A float32 number has 24 digits
// and big has 11. Because big is rounded and not cut off, at most 12 digits and a sign remain, and small has
// 11. So the sum of the two differs from the number by at most one unit in its last place, or by 2^-136,
// which is more below 2^-113. Small numbers therefore lose what is below 2^-136, and if they are at most
// 2^-137 everything. From (2 - 2^-11) 2^127 = 3.40199e38 on, which is 4096 units below the largest number,
// big is infinite. Then small is infinite too, with the other sign, and every product is NaN.
//
// cvt.rna.tf32 gives the same big, but it is four machine instructions, and two of them keep NaN. They are
// not needed here: if the number is NaN or infinite, small is NaN, and so is every product.
template <int N>
struct Operand<float, N> {
  static constexpr uint32_t kKept = 0xffffe000u, kHalf = 0x1000u;
  uint32_t big[N], small[N];
  __device__ void set(int i, uint32_t number) {
    big[i] = (number + kHalf) & kKept;
    small[i] = __float_as_uint(__uint_as_float(number) - __uint_as_float(big[i])) & kKept;
  }
};

template <class T, int N>
__device__ inline Operand<T, N> operand(const uint32_t (&numbers)[N]) {
  Operand<T, N> result;
#pragma unroll
  for (int i = 0; i < N; ++i) result.set(i, numbers[i]);
  return result;
}

// sums [16, 8] of each of the N tiles += a [16, K] b [K, 8] of the tile; K is 16, for float 8.
template <class T, int N>
  requires(sizeof(T) == 2)
__device__ inline void multiply_add(float (*sums)[4], const Operand<T, 4>& a, const Operand<T, 2> (&b)[N]) {
#pragma unroll
  for (int n = 0; n < N; ++n) ptx::mma_m16n8k16<T>(sums[n], a.bits, b[n].bits, sums[n]);
}

// Tensor cores cut sums off where float32 rounds them, so long sums on them would drift towards zero. So the
// tensor cores only sum eight products, and the result is added to the earlier sum outside of them. The small
// products come first, because little is cut off while the sum is small. The loops over tiles are inside,
// because the three instructions of one tile wait for each other.
template <int N>
__device__ inline void multiply_add(float (*sums)[4], const Operand<float, 4>& a,
                                    const Operand<float, 2> (&b)[N]) {
  float products[N][4] = {};
#pragma unroll
  for (int n = 0; n < N; ++n) ptx::mma_m16n8k8_tf32(products[n], a.small, b[n].big, products[n]);
#pragma unroll
  for (int n = 0; n < N; ++n) ptx::mma_m16n8k8_tf32(products[n], a.big, b[n].small, products[n]);
#pragma unroll
  for (int n = 0; n < N; ++n) ptx::mma_m16n8k8_tf32(products[n], a.big, b[n].big, products[n]);
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[n][e] += products[n][e];
  }
}

// s [16, 8 N] = a [16, D] b [8 N, D]^T; a and b are in shared memory. For ldmatrix a chunk of a row is four
// numbers of 32 bits as well as eight of 16 bits, and the lanes get what the instructions of either want.
template <class L, class T, int N>
__device__ inline void multiply_rows(float (&s)[N][4], const T* a, const T* b) {
  const int lane = threadIdx.x % 32;
  const int a_place = L::place(lane % 16, lane / 16 * kChunk<T>);
  const int b_place = L::place(lane % 8 + lane / 16 * 8, lane / 8 % 2 * kChunk<T>);
#pragma unroll
  for (int n = 0; n < N; ++n) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.f;
#pragma unroll
  for (int d = 0; d < L::D; d += 2 * kChunk<T>) {
    uint32_t from_a[4];
    ptx::ldmatrix<4>(from_a, a + L::along(a_place, d));
    const Operand<T, 4> left = operand<T>(from_a);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t from_b[4];
      ptx::ldmatrix<4>(from_b, b + L::along(b_place, d) + n * 8 * L::kPitch);
      const Operand<T, 2> right[2] = {operand<T>({from_b[0], from_b[1]}), operand<T>({from_b[2], from_b[3]})};
      multiply_add(&s[n], left, right);
    }
  }
}

template <class T>
__device__ inline uint32_t pack(float low, float high) {
  const T pair[2] = {static_cast<T>(low), static_cast<T>(high)};
  uint32_t bits;
  memcpy(&bits, pair, sizeof(bits));
  return bits;
}

// sum [16, D] += p [16, 8 N] b [8 N, D]; p is rounded to T, and b is in shared memory.
template <class L, class T, int N>
  requires(sizeof(T) == 2)
__device__ inline void add_weighted_rows(float (&sum)[L::D / 8][4], const float (&p)[N][4], const T* b) {
  const int lane = threadIdx.x % 32;
  const int b_place = L::place(lane % 16, lane / 16 * 8);
#pragma unroll
  for (int n = 0; n < N; n += 2) {
    const Operand<T, 4> weights =
        operand<T>({pack<T>(p[n][0], p[n][1]), pack<T>(p[n][2], p[n][3]), pack<T>(p[n + 1][0], p[n + 1][1]),
                    pack<T>(p[n + 1][2], p[n + 1][3])});
#pragma unroll
    for (int d = 0; d < L::D; d += 16) {
      uint32_t from_b[4];
      ptx::ldmatrix<4, true>(from_b, b + L::along(b_place, d) + n * 8 * L::kPitch);
      const Operand<T, 2> right[2] = {operand<T>({from_b[0], from_b[1]}), operand<T>({from_b[2], from_b[3]})};
      multiply_add(&sum[d / 8], weights, right);
    }
  }
}

// The same for float. ldmatrix cannot transpose 32-bit numbers, so the lanes load b themselves. A lane holds
// columns 2t and 2t + 1 of p, and the instruction reads them as columns t and t + 4. The sum is the same if
// the rows of b have this order too. One load reads four columns, 4g .. 4g + 3 of 32; they become column g of
// four tiles, and the sums are in the order of SumRuns. Eight lanes load at a time: four rows, two chunks
// each, all in different banks.
template <class L, int N>
__device__ inline void add_weighted_rows(float (&sum)[L::D / 8][4], const float (&p)[N][4], const float* b) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int even_place = L::place(2 * t, 4 * g), odd_place = L::place(2 * t + 1, 4 * g);
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const Operand<float, 4> weights = operand<float>({__float_as_uint(p[n][0]), __float_as_uint(p[n][2]),
                                                      __float_as_uint(p[n][1]), __float_as_uint(p[n][3])});
#pragma unroll
    for (int d = 0; d < L::D; d += 32) {
      const float* rows = b + n * 8 * L::kPitch;
      const uint4 even = *reinterpret_cast<const uint4*>(rows + L::along(even_place, d));
      const uint4 odd = *reinterpret_cast<const uint4*>(rows + L::along(odd_place, d));
      const Operand<float, 2> right[4] = {operand<float>({even.x, odd.x}), operand<float>({even.y, odd.y}),
                                          operand<float>({even.z, odd.z}), operand<float>({even.w, odd.w})};
      multiply_add(&sum[d / 8], weights, right);
    }
  }
}

}  // namespace wtal::attention
