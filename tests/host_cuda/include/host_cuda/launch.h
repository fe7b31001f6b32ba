// A launch: all blocks of the grid, one after the other in an order of chance.
#pragma once
#include <mutex>
#include <numeric>
#include <tuple>

#include "host_cuda/async_copy.h"

namespace host_cuda {

constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15u;

// What the orders of threads and blocks come from; the same seed, the same orders.
inline uint64_t shuffle_seed = 1;

inline void check_launch(dim3 grid, dim3 threads, size_t dynamic_bytes) {
  const auto product = [](dim3 d) { return uint64_t{d.x} * d.y * d.z; };
  std::string wrong;
  if (product(grid) == 0 || product(threads) == 0) wrong = "no block or no thread";
  if (grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535) wrong = "too many blocks";
  if (threads.x > 1024 || threads.y > 1024 || threads.z > 64 || product(threads) > 1024)
    wrong = "too many threads";
  if (dynamic_bytes > kMostDynamicShared) wrong = "more than 99 KB of dynamic shared memory";
  if (here.in_kernel) wrong = "a launch from within a kernel";
  if (!wrong.empty()) throw std::runtime_error("host_cuda: invalid launch: " + wrong);
}

// After check_launch. body(arguments) is what each thread does; shared_bytes are poisoned before each block.
inline void run_grid(dim3 grid, dim3 threads, size_t shared_bytes, Block::Body body, const void* arguments) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);

  DynamicShared dynamic(shared_bytes);
  dynamic_range = dynamic.range();
  static_range = static_shared();
  here.grid_dim = grid;
  here.block_dim = threads;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  Random random(shuffle_seed);
  // A stride that shares no factor with the number of blocks visits each of them once, in a scattered order.
  uint64_t stride = blocks < 3 ? 1 : 1 + random() % (blocks - 1);
  while (std::gcd(stride, blocks) != 1) ++stride;
  uint64_t next = random() % blocks;
  for (uint64_t done = 0; done < blocks; ++done, next = (next + stride) % blocks) {
    dynamic.poison();
    forget_async_copies();
    if (static_range.first) std::memset(static_range.first, kPoison, static_range.bytes);
    const uint3 index{static_cast<unsigned>(next % grid.x), static_cast<unsigned>(next / grid.x % grid.y),
                      static_cast<unsigned>(next / grid.x / grid.y)};
    block.run(index, threads, body, arguments, shuffle_seed + kGoldenRatio * (next + 1));
    if (dynamic.overrun()) {
      throw std::runtime_error("host_cuda: a write beyond the dynamic shared memory of block (" +
                               std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
                               std::to_string(index.z) + ")");
    }
  }
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t dynamic_bytes,
            std::type_identity_t<Parameters>... arguments) {
  check_launch(grid, threads, dynamic_bytes);
  using Arguments = std::pair<void (*)(Parameters...), std::tuple<Parameters...>>;
  const Arguments call{kernel, {arguments...}};
  const auto body = [](const void* data) {
    const auto& [function, values] = *static_cast<const Arguments*>(data);
    std::apply(function, values);
  };
  run_grid(grid, threads, dynamic_bytes, body, &call);
}

}  // namespace host_cuda
