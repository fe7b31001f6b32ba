// Small kernels for ldmatrix and mma, and the two parts of a float32 operand.
#pragma once
#include <cmath>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/attention_products.cuh"
#include "planted.h"

namespace planted {

using host_cuda::launch;
using wtal::ptx::dynamic_shared;

// d [16, 8] = a [16, K] b^T + c, b stored [8, K]; K is 16, of TF32 (float) 8. Fragments by ldmatrix, or
// loaded by hand as the PTX ISA says.
template <class T, bool kLdmatrix>
__global__ void multiply(const T* a, const T* b, const float* c, float* d) {
  constexpr int kDepth = 32 / sizeof(T), kInRegister = 4 / sizeof(T);
  T* const shared_a = dynamic_shared<T>();
  T* const shared_b = shared_a + 16 * kDepth;
  for (int i = threadIdx.x; i < 16 * kDepth; i += 32) shared_a[i] = a[i];
  for (int i = threadIdx.x; i < 8 * kDepth; i += 32) shared_b[i] = b[i];
  __syncthreads();
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  uint32_t a_regs[4], b_regs[2];
  if (kLdmatrix) {
    wtal::ptx::ldmatrix<4>(a_regs, &shared_a[lane % 16 * kDepth + lane / 16 * kDepth / 2]);
    wtal::ptx::ldmatrix<2>(b_regs, &shared_b[lane % 8 * kDepth + lane / 8 % 2 * kDepth / 2]);
  } else {
    const auto bits_at = [&](const T* matrix, int row, int k) {
      uint32_t bits;
      memcpy(&bits, &matrix[row * kDepth + k], sizeof(bits));
      return bits;
    };
    for (int i = 0; i < 4; ++i) {
      a_regs[i] = bits_at(shared_a, g + i % 2 * 8, kInRegister * t + i / 2 * kDepth / 2);
    }
    for (int i = 0; i < 2; ++i) b_regs[i] = bits_at(shared_b, g, kInRegister * t + i * kDepth / 2);
  }
  const int at[4] = {g * 8 + 2 * t, g * 8 + 2 * t + 1, (g + 8) * 8 + 2 * t, (g + 8) * 8 + 2 * t + 1};
  float out[4];
  const float start[4] = {c[at[0]], c[at[1]], c[at[2]], c[at[3]]};
  if constexpr (std::is_same_v<T, float>) {
    wtal::ptx::mma_m16n8k8_tf32(out, a_regs, b_regs, start);
  } else {
    wtal::ptx::mma_m16n8k16<T>(out, a_regs, b_regs, start);
  }
  for (int i = 0; i < 4; ++i) d[at[i]] = out[i];
}
// `more` is added to one element of a.
template <class T, bool kLdmatrix>
void product(float more = 0) {
  constexpr int kDepth = 32 / sizeof(T);
  std::vector<T> a(16 * kDepth), b(8 * kDepth);
  std::vector<float> c(16 * 8), d(16 * 8);
  for (int i = 0; i < 16 * kDepth; ++i) a[i] = T(i * 7 % 23 - 11);
  for (int i = 0; i < 8 * kDepth; ++i) b[i] = T(i * 5 % 19 - 9);
  a[5] = T(float(a[5]) + more);
  std::iota(c.begin(), c.end(), -50.f);
  launch(multiply<T, kLdmatrix>, 1, 32, 24 * kDepth * sizeof(T), a.data(), b.data(), c.data(), d.data());
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float expected = c[i * 8 + j];
      for (int k = 0; k < kDepth; ++k) expected += float(a[i * kDepth + k]) * float(b[j * kDepth + k]);
      EXPECT(d[i * 8 + j] == expected);
    }
  }
}

// Both parts are TF32 numbers, and what they leave of the number is at most a unit of its last place or, in
// numbers that are smaller than 2^-113, at most 2^-136.
inline void expect_parts(uint32_t bits) {
  const auto number = std::bit_cast<float>(bits);
  const auto parts = wtal::attention::operand<float>({bits});
  EXPECT(((parts.big[0] | parts.small[0]) & 0x1fffu) == 0);
  const float big = std::bit_cast<float>(parts.big[0]), small = std::bit_cast<float>(parts.small[0]);
  const double unit = std::nextafter(std::fabs(number), INFINITY) - std::fabs(number);
  EXPECT(std::fabs(double{number} - big) <= 4096 * unit);
  EXPECT(std::fabs(double{number} - big - small) <= std::fmax(unit, 0x1p-136));
}

// The first number whose big part is infinite: (2 - 2^-11) 2^127.
constexpr uint32_t kFirstInfinite = 0x7f7ff000u;

inline void parts() {
  for (uint32_t i = 0; i < 400000; ++i) {
    const uint32_t bits = (i * 2654435761u & 0x807fffffu) | i % 255 << 23;
    if ((bits & 0x7fffffffu) < kFirstInfinite) expect_parts(bits);
  }
  for (uint32_t i = 0; i < 20000; ++i) {  // the very ends
    for (const uint32_t sign : {0u, 0x80000000u}) {
      expect_parts(sign | i);
      expect_parts(sign | (kFirstInfinite - 1 - i));
    }
  }
}

// Of NaN, of infinity and of the numbers beyond (2 - 2^-11) 2^127 the small part is NaN or infinite, so that
// small * big + big * small + big * big is NaN whatever the other number is.
inline void parts_without_number() {
  std::vector<uint32_t> others = {0, 1, 0x00800000u, 0x3f800000u, 0x40490fdbu, 0x7f7fefffu};
  std::vector<uint32_t> wrong = {0x7fffffffu, 0x7fc00000u, 0x7f800001u, 0x7f800000u};
  for (uint32_t bits = kFirstInfinite; bits < 0x7f800000u; ++bits) wrong.push_back(bits);
  others.insert(others.end(), wrong.begin(), wrong.begin() + 6);
  const auto parts_of = [](uint32_t bits) {
    const auto parts = wtal::attention::operand<float>({bits});
    return std::pair(std::bit_cast<float>(parts.big[0]), std::bit_cast<float>(parts.small[0]));
  };
  for (const uint32_t bits : wrong) {
    for (const uint32_t other : others) {
      for (const uint32_t signs : {0u, 1u, 2u, 3u}) {
        const auto [big, small] = parts_of(bits | signs << 31);
        const auto [other_big, other_small] = parts_of(other | signs >> 1 << 31);
        EXPECT(!std::isfinite(small));
        EXPECT(std::isnan(small * other_big + big * other_small + big * other_big));
      }
    }
  }
}

// ldmatrix.trans of a matrix is what ldmatrix gives of its transpose.
__global__ void transposes(const uint16_t* in, int* wrong) {
  uint16_t* const plain = dynamic_shared<uint16_t>();  // [2, 8, 8], and its transposes behind it
  for (int i = threadIdx.x; i < 128; i += 32) {
    plain[i] = in[i];
    plain[128 + i / 64 * 64 + i % 8 * 8 + i / 8 % 8] = in[i];
  }
  __syncwarp();
  uint32_t one[2], other[2], single[1];
  wtal::ptx::ldmatrix<2, true>(one, &plain[threadIdx.x % 16 * 8]);
  wtal::ptx::ldmatrix<2>(other, &plain[128 + threadIdx.x % 16 * 8]);
  wtal::ptx::ldmatrix<1>(single, &plain[128 + threadIdx.x % 8 * 8]);
  if (one[0] != other[0] || one[1] != other[1] || single[0] != other[0]) atomicAdd(wrong, 1);
}
__global__ void odd_rows(const float* in) {
  float* const rows = dynamic_shared<float>();
  rows[threadIdx.x] = in[threadIdx.x];
  uint32_t r[1];
  wtal::ptx::ldmatrix<1>(r, &rows[threadIdx.x % 8 * 2]);
}
__global__ void lonely_mma() {
  if (threadIdx.x >= 16) return;
  float d[4] = {}, c[4] = {};
  uint32_t a[4] = {}, b[2] = {};
  wtal::ptx::mma_m16n8k16<__half>(d, a, b, c);
}

const Cases kTensorCoreCases = {
    {"half product by hand", [] { product<__half, false>(); }},
    {"half product", [] { product<__half, true>(); }},
    {"bfloat16 product", [] { product<__nv_bfloat16, true>(); }},
    {"transposes",
     [] {
       std::vector<uint16_t> in(128);
       std::iota(in.begin(), in.end(), 1);
       int wrong = 0;
       launch(transposes, 1, 32, 512, in.data(), &wrong);
       EXPECT(wrong == 0);
     }},
    {"odd rows",
     [] {
       const std::vector<float> in(32);
       launch(odd_rows, 1, 32, 128, in.data());
     }},
    {"lonely mma", [] { launch(lonely_mma, 1, 32, 0); }},
    {"tf32 product by hand", [] { product<float, false>(); }},
    {"tf32 product", [] { product<float, true>(); }},
    {"tf32 parts", parts},
    {"tf32 parts of what is no number or too large", parts_without_number},
    {"a product of more digits than TF32", [] { product<float, true>(0x1p-11f); }},
};

}  // namespace planted
