// What translated PTX stands on. Each translated file includes it, so it includes little itself: what meets
// other threads or touches memory is in runtime.cpp and memory.cpp.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace ptx {

// ---- entries --------------------------------------------------------------------------------------------
struct Array {  // a shared array: where it begins in the block's shared memory
  uint32_t begin, bytes;
};
struct Registered {
  const char* file;
  void (*function)(const char* const* parameters);  // what one thread does
  uint32_t parameters[24];                          // the bytes of each
  Array arrays[8];                                  // the static shared arrays
  uint32_t dynamic_begin;                           // where the dynamic shared memory begins
};
// Makes the entry known under its name. Called while the library is loaded.
struct Registration {
  Registration(const char* name, const Registered& entry);
};

struct Special {  // %tid and its kin
  uint32_t tid[3], ntid[3], ctaid[3], nctaid[3];
};
Special special();

// ---- memory: the address as a pointer, if all `bytes` bytes may be touched and are aligned ----------------
char* global(uint64_t address, uint32_t bytes, int line);
char* shared(uint32_t address, uint32_t bytes, int line);
const char* parameter(uint64_t address, uint32_t bytes, int line);

template <class T>
inline T load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}
template <class T>
inline void store(char* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

// ---- what threads do together -----------------------------------------------------------------------------
void barrier(int line);
// mode: 0 up, 1 down, 2 bfly, 3 idx. valid: whether the source lane lies in the segment.
uint32_t shuffle(int mode, uint32_t a, uint32_t b, uint32_t c, uint32_t mask, bool& valid, int line);
uint32_t ballot(bool a, uint32_t mask, int line);
uint32_t reduce_min(uint32_t a, uint32_t mask, int line);
uint32_t reduce_max(uint32_t a, uint32_t mask, int line);
template <int kMatrices, bool kTransposed>
void ldmatrix(uint32_t* to, uint32_t address, int line);
void mma_f16(float* d, const uint32_t* a, const uint32_t* b, const float* c, int line);
void mma_bf16(float* d, const uint32_t* a, const uint32_t* b, const float* c, int line);
void mma_tf32(float* d, const uint32_t* a, const uint32_t* b, const float* c, int line);
void cp_async(uint32_t to, uint64_t from, uint32_t bytes, uint32_t valid, int line);
void cp_async_commit();
void cp_async_wait(uint32_t pending);
int64_t atomic_min(uint64_t address, int64_t value, int line);
uint32_t atomic_add(uint32_t address, uint32_t value, int line);

// ---- arithmetic that C++ has not, or has otherwise -------------------------------------------------------
float fma_down(float a, float b, float c);        // fma.rm
float ex2_approx(float x, bool flush_subnormal);  // within 2 units in the last place, where the seed says
uint16_t to_f16(float x);                         // cvt.rn
uint16_t to_bf16(float x);
float from_f16(uint16_t bits);
float from_bf16(uint16_t bits);

template <class T>
inline T bits_to(auto bits) {
  return std::bit_cast<T>(bits);
}

// A shift by the width or more gives zero, or the sign.
template <class T>
inline T shift_left(T x, uint32_t n) {
  return n >= 8 * sizeof(T) ? T(0) : static_cast<T>(x << n);
}
template <class T>
inline T shift_right(T x, uint32_t n) {
  if (n >= 8 * sizeof(T)) return std::is_signed_v<T> && x < 0 ? T(-1) : T(0);
  return static_cast<T>(x >> n);
}

// Division by zero is unspecified in PTX; cards give all ones, and the dividend as the remainder.
template <class T>
inline T quotient(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return static_cast<T>(-static_cast<std::make_unsigned_t<T>>(a));
  }
  return a / b;
}
template <class T>
inline T remainder(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return 0;
  }
  return a % b;
}

// NaN gives way to a number, and -0 is less than +0.
template <class T>
inline T least(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a) return b;
    if (b != b) return a;
    if (a == b) return std::signbit(a) ? a : b;
  }
  return a < b ? a : b;
}
template <class T>
inline T greatest(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a) return b;
    if (b != b) return a;
    if (a == b) return std::signbit(a) ? b : a;
  }
  return a > b ? a : b;
}

template <class T>
inline T saturate(T x) {
  return x > 0 ? (x < 1 ? x : T(1)) : T(0);  // NaN becomes +0
}

// cvt.rzi: out of range goes to the nearest end. NaN: 0 from f32 to 32 bits, else the highest bit alone.
template <class Int, class Float>
inline Int to_integer(Float x) {
  if (x != x) return sizeof(Int) == 4 && sizeof(Float) == 4 ? Int(0) : std::numeric_limits<Int>::min();
  const Float end = std::ldexp(Float(1), 8 * sizeof(Int) - 1);
  if (x >= end) return std::numeric_limits<Int>::max();
  if (x < -end) return std::numeric_limits<Int>::min();
  return static_cast<Int>(x);
}

inline uint32_t reversed(uint32_t x) {
  uint32_t out = 0;
  for (int i = 0; i < 32; ++i) out |= (x >> i & 1u) << (31 - i);
  return out;
}
// bfi: the lowest `length` bits of a in the place of b's from `position` on.
template <class T>
T insert_bits(T a, T b, uint32_t position, uint32_t length) {
  constexpr uint32_t kBits = 8 * sizeof(T);
  position &= 255, length &= 255;
  if (position >= kBits) return b;
  const T mask = static_cast<T>((length >= kBits ? ~T{0} : (T{1} << length) - 1) << position);
  return static_cast<T>((b & ~mask) | ((a << position) & mask));
}

}  // namespace ptx
