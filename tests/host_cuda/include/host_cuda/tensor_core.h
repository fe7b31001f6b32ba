// mma and ldmatrix, fragment by fragment as the PTX ISA lays them out over the lanes.
#pragma once
#include "host_cuda/half.h"
#include "host_cuda/memory.h"
#include "host_cuda/warp.h"

namespace host_cuda {

// The rows and columns of fragment elements. A [16, K] by rows, B [K, 8] by columns, C and D [16, 8].
struct FragmentIndex {
  int row, column;
};
inline FragmentIndex element_of_c(int lane, int i) {
  return {lane / 4 + (i >= 2 ? 8 : 0), lane % 4 * 2 + i % 2};
}

// mma.m16n8k16: two 16-bit numbers in a register.
template <class T>
struct HalfProduct {
  static constexpr const char* kName = "mma.m16n8k16";
  static constexpr int kDepth = 16, kTogether = 8;  // K; how many products are added at a time
  static constexpr int kInA = 8, kInB = 4;          // elements of a lane
  static FragmentIndex element_of_a(int lane, int i) {
    return {lane / 4 + (i % 4 >= 2 ? 8 : 0), lane % 4 * 2 + i % 2 + (i >= 4 ? 8 : 0)};
  }
  static FragmentIndex element_of_b(int lane, int i) {
    return {lane % 4 * 2 + i % 2 + (i >= 2 ? 8 : 0), lane / 4};
  }
  static float element(const uint32_t* registers, int i) {
    return T::from_bits(static_cast<uint16_t>(registers[i / 2] >> 16 * (i % 2)));
  }
};

// mma.m16n8k8 of TF32: one number in a register, float32 with 13 zeros at its end. PTX does not say what a
// register with other bits there means, so that is an error here.
struct Tf32Product {
  static constexpr const char* kName = "mma.m16n8k8.tf32";
  static constexpr int kDepth = 8, kTogether = 4;
  static constexpr int kInA = 4, kInB = 2;
  static FragmentIndex element_of_a(int lane, int i) {
    return {lane / 4 + (i % 2 ? 8 : 0), lane % 4 + (i >= 2 ? 4 : 0)};
  }
  static FragmentIndex element_of_b(int lane, int i) { return {lane % 4 + (i ? 4 : 0), lane / 4}; }
  static float element(const uint32_t* registers, int i) {
    const auto value = std::bit_cast<float>(registers[i]);
    if (!std::isnan(value) && (registers[i] & 0x1fffu)) {
      block.fail("mma.m16n8k8.tf32: " + std::to_string(value) + " is not a TF32 number");
    }
    return value;
  }
};

inline float toward_zero(double value) {
  const auto nearest = static_cast<float>(value);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(value) ? std::nextafter(nearest, 0.0f) : nearest;
}

struct MmaOperands {
  float* d;
  const uint32_t *a, *b;
  const float* c;
};

// d = a b + c. Products are exact; eight of them, of TF32 four, and the accumulator are added at a time and
// cut off, not rounded, to float32, as measured on tensor cores (Fasi et al., "Numerical behavior of NVIDIA
// tensor cores", 2021). Those cut each addend off as well, where the largest one ends; that is not done here.
template <class Product>
void mma(Site site, MmaOperands mine) {
  block.meet({Product::kName, site, 0xffffffffu, &mine, [](void* const* records, unsigned present) {
                constexpr int kDepth = Product::kDepth;
                if (present != 0xffffffffu) {
                  block.fail(std::string(Product::kName) + " without the whole warp");
                }
                float a[16][kDepth], b[kDepth][8], c[16][8];
                for (int lane = 0; lane < kWarp; ++lane) {
                  const auto& from = *static_cast<const MmaOperands*>(records[lane]);
                  for (int i = 0; i < Product::kInA; ++i) {
                    const FragmentIndex at = Product::element_of_a(lane, i);
                    a[at.row][at.column] = Product::element(from.a, i);
                  }
                  for (int i = 0; i < Product::kInB; ++i) {
                    const FragmentIndex at = Product::element_of_b(lane, i);
                    b[at.row][at.column] = Product::element(from.b, i);
                  }
                  for (int i = 0; i < 4; ++i) {
                    const FragmentIndex at = element_of_c(lane, i);
                    c[at.row][at.column] = from.c[i];
                  }
                }
                for (int row = 0; row < 16; ++row) {
                  for (int column = 0; column < 8; ++column) {
                    for (int first = 0; first < kDepth; first += Product::kTogether) {
                      double sum = c[row][column];
                      for (int k = first; k < first + Product::kTogether; ++k) {
                        sum += double{a[row][k]} * b[k][column];
                      }
                      c[row][column] = toward_zero(sum);
                    }
                  }
                }
                for (int lane = 0; lane < kWarp; ++lane) {
                  const auto& to = *static_cast<const MmaOperands*>(records[lane]);
                  for (int i = 0; i < 4; ++i) {
                    const FragmentIndex at = element_of_c(lane, i);
                    to.d[i] = c[at.row][at.column];
                  }
                }
              }});
}

template <class T>
void mma_m16n8k16(Site site, MmaOperands mine) {
  mma<HalfProduct<T>>(site, mine);
}
inline void mma_m16n8k8_tf32(Site site, MmaOperands mine) { mma<Tf32Product>(site, mine); }

struct LdmatrixOperands {
  uint32_t* to;
  const void* row;  // one row of eight 16-bit numbers; lanes 8 j to 8 j + 7 name those of matrix j
};

template <int kMatrices, bool kTransposed>
void ldmatrix(Site site, LdmatrixOperands mine) {
  block.meet(
      {kTransposed ? "ldmatrix.trans" : "ldmatrix", site, 0xffffffffu, &mine,
       [](void* const* records, unsigned present) {
         if (present != 0xffffffffu) block.fail("ldmatrix without the whole warp");
         uint16_t rows[8 * kMatrices][8];
         for (int lane = 0; lane < 8 * kMatrices; ++lane) {
           const void* row = static_cast<const LdmatrixOperands*>(records[lane])->row;
           if (reinterpret_cast<uintptr_t>(row) % 16 != 0) {
             block.fail("ldmatrix: the row of lane " + std::to_string(lane) + " is not aligned to 16 bytes");
           }
           if (!is_shared(row, 16)) {
             block.fail("ldmatrix: the row of lane " + std::to_string(lane) + " is not in shared memory");
           }
           std::memcpy(rows[lane], row, 16);
         }
         for (int lane = 0; lane < kWarp; ++lane) {
           uint32_t* to = static_cast<const LdmatrixOperands*>(records[lane])->to;
           for (int matrix = 0; matrix < kMatrices; ++matrix) {
             const auto* from = &rows[8 * matrix];
             const int major = lane / 4, minor = lane % 4 * 2;
             const uint32_t low = kTransposed ? from[minor][major] : from[major][minor];
             const uint32_t high = kTransposed ? from[minor + 1][major] : from[major][minor + 1];
             to[matrix] = low | high << 16;
           }
         }
       }});
}

}  // namespace host_cuda
