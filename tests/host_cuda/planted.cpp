// Small kernels for the shim's own tests: right ones, whose result is known, and one for each fault that it
// must report. The program runs the case that its argument names; it prints what was wrong and ends with 1.
#include "planted.h"

#include <cstdio>
#include <memory>
#include <numeric>

#include "planted_tensor_cores.h"

namespace {

using host_cuda::launch;
using planted::expect;
using wtal::ptx::dynamic_shared;
constexpr unsigned kAll = 0xffffffffu;

// ---- barriers and shared memory
// ----------------------------------------------------------------------------------- Each thread hands its
// number to the next one round; without the barrier some read NaN.
template <bool kBarrier>
__global__ void neighbours(float* out) {
  __shared__ float ring[96];
  ring[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (kBarrier) __syncthreads();
  out[blockIdx.x * 96 + threadIdx.x] = ring[(threadIdx.x + 1) % 96];
}
template <bool kBarrier>
void ring() {
  std::vector<float> out(5 * 96);
  launch(neighbours<kBarrier>, 5, 96, 0, out.data());
  for (int i = 0; i < 5 * 96; ++i) EXPECT(out[i] == static_cast<float>((i % 96 + 1) % 96));
}

// The second barrier keeps a fast warp from overwriting what a slow one has still to read.
template <bool kSecond>
__global__ void relay(int* out) {
  __shared__ int slot;
  for (int round = 0; round < 8; ++round) {
    if (threadIdx.x == 0) slot = round;
    __syncthreads();
    out[round * 128 + threadIdx.x] = slot;
    if (kSecond) __syncthreads();
  }
}
template <bool kSecond>
void rounds() {
  std::vector<int> out(8 * 128);
  launch(relay<kSecond>, 1, 128, 0, out.data());
  for (int i = 0; i < 8 * 128; ++i) EXPECT(out[i] == i / 128);
}

__global__ void some_never_arrive() {
  if (blockIdx.x != 2 || threadIdx.x >= 7) __syncthreads();
}
__global__ void different_barriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void barrier_sums(int* out) {
  const int count = __syncthreads_count(threadIdx.x % 3 == 0);
  const bool any = __syncthreads_or(threadIdx.x == 77), none = __syncthreads_or(false);
  const bool all = __syncthreads_and(true), not_all = __syncthreads_and(threadIdx.x != 5);
  out[threadIdx.x] = count * 16 + any * 8 + none * 4 + all * 2 + not_all;
}
__global__ void left_over(float* out) {
  __shared__ float cell;
  if (blockIdx.x % 2 == 0) cell = 1.0f;
  out[blockIdx.x] = cell;
}
__global__ void write_dynamic(int last) {
  if (threadIdx.x == 0) dynamic_shared<char>()[last] = 1;
}
__global__ void index_static(int i, int* out) {
  __shared__ int cells[8];
  cells[i] = 1;
  *out = cells[i];
}
__global__ void write_global(int* cells, int i) { cells[i] = 1; }
__global__ void read_global(const int* cells, int i, int* out) { *out = cells[i]; }
__global__ void misaligned(const char* bytes, float4* out) { *out = *reinterpret_cast<const float4*>(bytes); }
__global__ void overflow(int x, int* out) { *out = x + 1; }

// ---- warps
// --------------------------------------------------------------------------------------------------------
__global__ void warp_values(int* wrong) {
  const int lane = threadIdx.x % 32;
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  bool right = __shfl_sync(kAll, lane * 10, 5) == 50 && __shfl_sync(kAll, lane, lane + 3) == (lane + 3) % 32;
  right &= __shfl_sync(kAll, lane, 2, 8) == lane / 8 * 8 + 2;
  right &= __shfl_up_sync(kAll, lane, 3) == (lane < 3 ? lane : lane - 3);
  right &= __shfl_down_sync(kAll, lane, 3) == (lane > 28 ? lane : lane + 3);
  right &= __shfl_down_sync(kAll, lane, 3, 8) == (lane % 8 > 4 ? lane : lane + 3);
  right &= __shfl_xor_sync(kAll, 1.5 * lane, 9) == 1.5 * (lane ^ 9);
  right &= __shfl_xor_sync(half, lane, 1) == (lane ^ 1);
  right &=
      __ballot_sync(kAll, lane % 2) == 0xaaaaaaaau && __ballot_sync(half, lane == 3) == (lane < 16 ? 8u : 0u);
  right &= __any_sync(kAll, lane == 31) && !__any_sync(kAll, false);
  right &= __all_sync(kAll, true) && !__all_sync(kAll, lane != 4) &&
           __all_sync(half, (lane < 16) == (half == 0xffffu));
  right &= __reduce_add_sync(kAll, lane) == 496 && __reduce_max_sync(half, lane) == (lane < 16 ? 15 : 31);
  right &= __reduce_min_sync(kAll, -lane) == -31 && __reduce_or_sync(kAll, 1u << lane) == kAll;
  right &= __reduce_and_sync(kAll, ~(1u << lane)) == 0u && __reduce_xor_sync(kAll, 1u << lane) == kAll;
  right &= __match_any_sync(kAll, lane % 4) == 0x11111111u << lane % 4;
  __syncwarp();
  if (!right) atomicAdd(wrong, 1);
}
__global__ void exited_lanes(unsigned* out) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __ballot_sync(kAll, true);
}
__global__ void not_in_mask() { __syncwarp(0xfffffffeu); }
__global__ void masks_differ() {
  __ballot_sync(threadIdx.x < 16 ? kAll : 0xffff0000u, true);
  __syncthreads();
}
__global__ void intrinsics_differ() {
  if (threadIdx.x < 16) {
    __any_sync(kAll, true);
  } else {
    __all_sync(kAll, true);
  }
}
__global__ void absent_source() { __shfl_sync(threadIdx.x < 16 ? 0xffffu : 0xffff0000u, 1, 20); }
__global__ void absent_lanes() { __syncwarp(); }
__global__ void half_a_warp_waits() {
  if (threadIdx.x < 16) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}
// Lanes pass a number on through shared memory; __syncwarp is what makes that right.
template <bool kSync>
__global__ void warp_ring(int* out) {
  __shared__ int ring[32];
  ring[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (kSync) __syncwarp();
  out[threadIdx.x] = ring[(threadIdx.x + 1) % 32];
}
template <bool kSync>
void lanes() {
  std::vector<int> out(32);
  launch(warp_ring<kSync>, 1, 32, 0, out.data());
  for (int i = 0; i < 32; ++i) EXPECT(out[i] == (i + 1) % 32);
}

// ---- atomics
// ------------------------------------------------------------------------------------------------------
__global__ void atomics(int* sums, unsigned* ticket, unsigned long long* least, float* total) {
  atomicAdd(&sums[threadIdx.x % 4], 2);
  atomicMin(least, 1000ull - threadIdx.x);
  atomicAdd(total, 0.5f);
  atomicInc(ticket, 9);
}
// Two atomics are not one: others come in between.
__global__ void check_then_act(unsigned* taken, int* owners) {
  if (atomicAdd(taken, 0u) == 0) {
    atomicExch(taken, 1u);
    atomicAdd(owners, 1);
  }
}

// ---- cp.async
// ----------------------------------------------------------------------------------------------------- Four
// stages, two copies ahead, as a kernel with a pipeline has them. Each thread reads what its neighbour
// copied.
template <int kPending, bool kBarrier>
__global__ void pipeline(const float4* in, float4* out, int stages) {
  float4* const buffer = dynamic_shared<float4>();  // [3, 64]
  const auto start = [&](int stage) {
    if (stage < stages)
      wtal::ptx::cp_async_16(&buffer[stage % 3 * 64 + threadIdx.x], &in[stage * 64 + threadIdx.x]);
    wtal::ptx::cp_async_commit();
  };
  start(0);
  start(1);
  for (int stage = 0; stage < stages; ++stage) {
    wtal::ptx::cp_async_wait_group<kPending>();
    if (kBarrier) __syncthreads();
    out[stage * 64 + threadIdx.x] = buffer[stage % 3 * 64 + (threadIdx.x + 1) % 64];
    start(stage + 2);
  }
}
template <int kPending, bool kBarrier>
void copies() {
  std::vector<float4> in(4 * 64), out(4 * 64);
  for (int i = 0; i < 4 * 64; ++i) in[i] = {1.f * i, 2.f * i, 3.f * i, 4.f * i};
  launch(pipeline<kPending, kBarrier>, 1, 64, 3 * 64 * sizeof(float4), in.data(), out.data(), 4);
  for (int i = 0; i < 4 * 64; ++i) {
    const float expected = 4.f * static_cast<float>(i / 64 * 64 + (i + 1) % 64);
    EXPECT(out[i].w == expected);
  }
}
__global__ void zero_fill(const float4* in, float4* out) {
  float4* const buffer = dynamic_shared<float4>();
  wtal::ptx::cp_async_16(buffer, in, 8);
  wtal::ptx::cp_async_commit();
  wtal::ptx::cp_async_wait_group<0>();
  *out = *buffer;
}
__global__ void copy_from(const char* from, int to) {
  wtal::ptx::cp_async_16(dynamic_shared<char>() + to, from);
}
__global__ void copy_to_global(const float4* from, float4* to) { wtal::ptx::cp_async_16(to, from); }

template <class Product>
void find_element(char matrix, int lane, int i, int* row, int* column) {
  const auto at = matrix == 'a'   ? Product::element_of_a(lane, i)
                  : matrix == 'b' ? Product::element_of_b(lane, i)
                                  : host_cuda::element_of_c(lane, i);
  *row = at.row, *column = at.column;
}

const planted::Cases kCases = {
    {"ring", ring<true>},
    {"ring without barrier", ring<false>},
    {"rounds", rounds<true>},
    {"rounds without second barrier", rounds<false>},
    {"deadlock", [] { launch(some_never_arrive, 4, 64, 0); }},
    {"different barriers", [] { launch(different_barriers, 1, 64, 0); }},
    {"barrier sums",
     [] {
       std::vector<int> out(100);
       launch(barrier_sums, 1, 100, 0, out.data());
       for (const int value : out) EXPECT(value == 34 * 16 + 8 + 2);
     }},
    {"left over",
     [] {
       std::vector<float> out(16);
       launch(left_over, 16, 1, 0, out.data());
       for (int i = 0; i < 16; ++i) EXPECT(i % 2 == 0 ? out[i] == 1.0f : std::isnan(out[i]));
     }},
    {"dynamic shared", [] { launch(write_dynamic, 1, 32, 100, 99); }},
    {"beyond dynamic shared", [] { launch(write_dynamic, 1, 32, 100, 100); }},
    {"no dynamic shared", [] { launch(write_dynamic, 1, 32, 0, 0); }},
    {"beyond static shared",
     [] {
       int out;
       launch(index_static, 1, 1, 0, 8, &out);
     }},
    {"beyond global, writing",
     [] {
       const std::unique_ptr<int[]> cells(new int[8]);
       launch(write_global, 1, 1, 0, cells.get(), 8);
     }},
    {"before global, reading",
     [] {
       const std::unique_ptr<int[]> cells(new int[8]);
       int out;
       launch(read_global, 1, 1, 0, cells.get(), -1, &out);
     }},
    {"misaligned vector",
     [] {
       alignas(16) char bytes[32] = {};
       float4 out;
       launch(misaligned, 1, 1, 0, bytes + 4, &out);
     }},
    {"integer overflow",
     [] {
       int out;
       launch(overflow, 1, 1, 0, 2147483647, &out);
     }},
    {"warp values",
     [] {
       int wrong = 0;
       launch(warp_values, 2, 64, 0, &wrong);
       EXPECT(wrong == 0);
     }},
    {"exited lanes",
     [] {
       std::vector<unsigned> out(20);
       launch(exited_lanes, 1, 32, 0, out.data());
       for (const unsigned ballot : out) EXPECT((ballot & ~0xfffffu) == 0);
       EXPECT(out[0] == 0xfffffu);
     }},
    {"not in mask", [] { launch(not_in_mask, 1, 32, 0); }},
    {"masks differ", [] { launch(masks_differ, 1, 32, 0); }},
    {"intrinsics differ", [] { launch(intrinsics_differ, 1, 32, 0); }},
    {"absent source", [] { launch(absent_source, 1, 32, 0); }},
    {"absent lanes", [] { launch(absent_lanes, 1, 40, 0); }},
    {"half a warp waits", [] { launch(half_a_warp_waits, 1, 32, 0); }},
    {"lanes", lanes<true>},
    {"lanes without __syncwarp", lanes<false>},
    {"atomics",
     [] {
       std::vector<int> sums(4);
       unsigned ticket = 0;
       unsigned long long least = 5000;
       float total = 0;
       launch(atomics, 3, 128, 0, sums.data(), &ticket, &least, &total);
       EXPECT(sums == std::vector<int>(4, 3 * 64));
       EXPECT(ticket == 384 % 10 && least == 873 && total == 192.0f);
     }},
    {"check then act",
     [] {
       unsigned taken = 0;
       int owners = 0;
       launch(check_then_act, 1, 256, 0, &taken, &owners);
       EXPECT(owners == 1);
     }},
    {"copies", copies<1, true>},
    {"copies, wait too weak", copies<2, true>},
    {"copies without barrier", copies<1, false>},
    {"zero fill",
     [] {
       const float4 in{1, 2, 3, 4};
       float4 out;
       launch(zero_fill, 1, 1, 16, &in, &out);
       EXPECT(out.x == 1 && out.y == 2 && out.z == 0 && out.w == 0);
     }},
    {"copy from a misaligned address",
     [] {
       alignas(16) char bytes[32] = {};
       launch(copy_from, 1, 1, 64, bytes + 8, 0);
     }},
    {"copy beyond shared memory",
     [] {
       alignas(16) char bytes[16] = {};
       launch(copy_from, 1, 1, 64, bytes, 64);
     }},
    {"copy to global memory",
     [] {
       const float4 from{};
       float4 to;
       launch(copy_to_global, 1, 1, 0, &from, &to);
     }},
    {"too much dynamic shared", [] { launch(write_dynamic, 1, 32, (99 << 10) + 1, 0); }},
    {"too many threads", [] { launch(not_in_mask, 1, 1025, 0); }},
};

}  // namespace

// ---- for ctypes
// ---------------------------------------------------------------------------------------------------
extern "C" {
// What was wrong; empty if nothing was.
__attribute__((visibility("default"))) const char* run_case(const char* name, uint64_t seed) {
  static std::string message;
  host_cuda::shuffle_seed = seed;
  message.clear();
  try {
    (planted::kTensorCoreCases.contains(name) ? planted::kTensorCoreCases : kCases).at(name)();
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.c_str();
}
// Where element `i` of a lane's fragment of a, b or c lies.
__attribute__((visibility("default"))) void fragment_element_of_half(char matrix, int lane, int i, int* row,
                                                                     int* column) {
  find_element<host_cuda::HalfProduct<__half>>(matrix, lane, i, row, column);
}
__attribute__((visibility("default"))) void fragment_element_of_tf32(char matrix, int lane, int i, int* row,
                                                                     int* column) {
  find_element<host_cuda::Tf32Product>(matrix, lane, i, row, column);
}
__attribute__((visibility("default"))) void to_half(const double* in, uint16_t* out, long count) {
  for (long i = 0; i < count; ++i) out[i] = __half(in[i]).bits;
}
__attribute__((visibility("default"))) void to_bfloat16(const double* in, uint16_t* out, long count) {
  for (long i = 0; i < count; ++i) out[i] = __nv_bfloat16(in[i]).bits;
}
__attribute__((visibility("default"))) void from_half(const uint16_t* in, float* out, long count) {
  for (long i = 0; i < count; ++i) out[i] = __half::from_bits(in[i]);
}
__attribute__((visibility("default"))) void from_bfloat16(const uint16_t* in, float* out, long count) {
  for (long i = 0; i < count; ++i) out[i] = __nv_bfloat16::from_bits(in[i]);
}
}

int main(int, char** arguments) {
  const std::string message = run_case(arguments[1], 1);
  if (!message.empty()) printf("%s\n", message.c_str());
  return message.empty() ? 0 : 1;
}
