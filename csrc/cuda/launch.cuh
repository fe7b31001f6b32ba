// Constants and index arithmetic that the kernels of group_proposals and soft_nms share.
#pragma once
#include <cstdint>

namespace wtal {

constexpr int kWarpSize = 32;
constexpr unsigned kWholeWarp = 0xffffffffu;
constexpr int64_t kMaxBlocks = 65536;  // kernels stride over the rest

inline unsigned blocks_for(int64_t items, int threads) {
  const int64_t blocks = (items + threads - 1) / threads;
  return static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

}  // namespace wtal
