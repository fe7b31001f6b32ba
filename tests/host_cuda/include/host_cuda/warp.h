// What the lanes of a warp do together. Each is a meeting of the lanes in its mask, checked as CUDA demands
// it: the caller in its own mask, every lane named there in the same intrinsic with the same mask, and no
// value taken from a lane that is not among them. Shuffles order no memory; __syncwarp does.
#pragma once
#include <type_traits>

#include "host_cuda/block.h"

namespace host_cuda {

struct Exchange {
  uint64_t value;
  int source;  // the lane whose value is wanted
  uint64_t result;
};

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

inline unsigned lane_id() { return here.id % kWarp; }

template <class T>
T shuffle(const char* what, Site site, unsigned mask, T value, int source) {
  static_assert(std::is_arithmetic_v<T> || sizeof(T) <= 4, "a type that CUDA shuffles");
  Exchange mine{to_bits(value), source, 0};
  block.meet({what, site, mask, &mine, [](void* const* records, unsigned present) {
                for (unsigned rest = present; rest; rest &= rest - 1) {
                  auto* to = static_cast<Exchange*>(records[std::countr_zero(rest)]);
                  const auto* from = static_cast<const Exchange*>(records[to->source]);
                  if (!from) {
                    block.fail("a shuffle takes the value of lane " + std::to_string(to->source) +
                               ", which is not among those that take part, " + Block::hex(present));
                  }
                  to->result = from->value;
                }
              }});
  return from_bits<T>(mine.result);
}

inline int segment(int width) { return static_cast<int>(lane_id()) & ~(width - 1); }

template <class T>
T shfl(Site site, unsigned mask, T value, int source, int width = kWarp) {
  return shuffle("__shfl_sync", site, mask, value, segment(width) + (source & (width - 1)));
}
template <class T>
T shfl_up(Site site, unsigned mask, T value, unsigned delta, int width = kWarp) {
  const int lane = static_cast<int>(lane_id()), source = lane - static_cast<int>(delta);
  return shuffle("__shfl_up_sync", site, mask, value, source < segment(width) ? lane : source);
}
template <class T>
T shfl_down(Site site, unsigned mask, T value, unsigned delta, int width = kWarp) {
  const int lane = static_cast<int>(lane_id()), source = lane + static_cast<int>(delta);
  return shuffle("__shfl_down_sync", site, mask, value, source >= segment(width) + width ? lane : source);
}
template <class T>
T shfl_xor(Site site, unsigned mask, T value, int bits, int width = kWarp) {
  const int lane = static_cast<int>(lane_id()), source = lane ^ bits;
  return shuffle("__shfl_xor_sync", site, mask, value, source >= segment(width) + width ? lane : source);
}

struct Vote {
  bool value;
  unsigned ballot, present;
};
inline Vote vote(const char* what, Site site, unsigned mask, bool value) {
  Vote mine{value, 0, 0};
  block.meet({what, site, mask, &mine, [](void* const* records, unsigned present) {
                unsigned ballot = 0;
                for (unsigned rest = present; rest; rest &= rest - 1) {
                  const unsigned lane = std::countr_zero(rest);
                  ballot |= static_cast<unsigned>(static_cast<const Vote*>(records[lane])->value) << lane;
                }
                for (unsigned rest = present; rest; rest &= rest - 1) {
                  auto* to = static_cast<Vote*>(records[std::countr_zero(rest)]);
                  to->ballot = ballot;
                  to->present = present;
                }
              }});
  return mine;
}

inline unsigned ballot(Site site, unsigned mask, bool p) {
  return vote("__ballot_sync", site, mask, p).ballot;
}
inline int any(Site site, unsigned mask, bool p) { return vote("__any_sync", site, mask, p).ballot != 0; }
inline int all(Site site, unsigned mask, bool p) {
  const Vote votes = vote("__all_sync", site, mask, p);
  return votes.ballot == votes.present;
}

// op: an associative operation on T, the same in every lane.
template <class T, class Op>
T reduce(const char* what, Site site, unsigned mask, T value, Op) {
  static_assert(sizeof(T) == 4 && std::is_integral_v<T>, "__reduce_*_sync take 32-bit integers");
  block.meet({what, site, mask, &value, [](void* const* records, unsigned present) {
                T total = *static_cast<T*>(records[std::countr_zero(present)]);
                for (unsigned rest = present & (present - 1); rest; rest &= rest - 1) {
                  total = Op{}(total, *static_cast<T*>(records[std::countr_zero(rest)]));
                }
                for (unsigned rest = present; rest; rest &= rest - 1) {
                  *static_cast<T*>(records[std::countr_zero(rest)]) = total;
                }
              }});
  return value;
}

struct Least {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Greatest {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
// Wraps around, as the device does.
struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) + static_cast<std::make_unsigned_t<T>>(b));
  }
};

template <class T>
unsigned match(Site site, unsigned mask, T value) {
  Exchange mine{to_bits(value), 0, 0};
  block.meet({"__match_any_sync", site, mask, &mine, [](void* const* records, unsigned present) {
                for (unsigned rest = present; rest; rest &= rest - 1) {
                  auto* to = static_cast<Exchange*>(records[std::countr_zero(rest)]);
                  for (unsigned others = present; others; others &= others - 1) {
                    const unsigned lane = std::countr_zero(others);
                    if (static_cast<const Exchange*>(records[lane])->value == to->value)
                      to->result |= 1u << lane;
                  }
                }
              }});
  return static_cast<unsigned>(mine.result);
}

inline void sync_warp(Site site, unsigned mask = 0xffffffffu) {
  block.meet({"__syncwarp", site, mask, nullptr, [](void* const*, unsigned) {}});
}

}  // namespace host_cuda

#define __shfl_sync(...) ::host_cuda::shfl(HOST_CUDA_SITE, __VA_ARGS__)
#define __shfl_up_sync(...) ::host_cuda::shfl_up(HOST_CUDA_SITE, __VA_ARGS__)
#define __shfl_down_sync(...) ::host_cuda::shfl_down(HOST_CUDA_SITE, __VA_ARGS__)
#define __shfl_xor_sync(...) ::host_cuda::shfl_xor(HOST_CUDA_SITE, __VA_ARGS__)
#define __syncwarp(...) ::host_cuda::sync_warp(HOST_CUDA_SITE __VA_OPT__(, ) __VA_ARGS__)
#define __match_any_sync(...) ::host_cuda::match(HOST_CUDA_SITE, __VA_ARGS__)
#define __activemask() static_assert(false, "__activemask promises nothing; name the lanes")

#define __ballot_sync(mask, p) ::host_cuda::ballot(HOST_CUDA_SITE, mask, p)
#define __any_sync(mask, p) ::host_cuda::any(HOST_CUDA_SITE, mask, p)
#define __all_sync(mask, p) ::host_cuda::all(HOST_CUDA_SITE, mask, p)

#define HOST_CUDA_REDUCE(name, mask, value, op) ::host_cuda::reduce(name, HOST_CUDA_SITE, mask, value, op)
#define __reduce_add_sync(m, v) HOST_CUDA_REDUCE("__reduce_add_sync", m, v, ::host_cuda::Sum{})
#define __reduce_min_sync(m, v) HOST_CUDA_REDUCE("__reduce_min_sync", m, v, ::host_cuda::Least{})
#define __reduce_max_sync(m, v) HOST_CUDA_REDUCE("__reduce_max_sync", m, v, ::host_cuda::Greatest{})
#define __reduce_and_sync(m, v) HOST_CUDA_REDUCE("__reduce_and_sync", m, v, std::bit_and<>{})
#define __reduce_or_sync(m, v) HOST_CUDA_REDUCE("__reduce_or_sync", m, v, std::bit_or<>{})
#define __reduce_xor_sync(m, v) HOST_CUDA_REDUCE("__reduce_xor_sync", m, v, std::bit_xor<>{})
