// Constants and launch sizes that the kernels of all ops share.
#pragma once
#include <cstdint>

namespace wtal {

constexpr int kWarpSize = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int64_t kMaxBlocks = 65536;  // each block takes further work with this stride

inline unsigned blocks_for(int64_t items, int threads) {
  const int64_t blocks = (items + threads - 1) / threads;
  return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

}  // namespace wtal
