// The comparisons of a sorting network, computed at compile time.
#pragma once

namespace wtal {

// Batcher's odd-even merge sort of kCount values: the pairs to compare, in order.
template <int kCount>
struct SortingNetwork {
  int pairs[512][2] = {};
  int size = 0;
  constexpr SortingNetwork() {
    for (int p = 1; p < kCount; p *= 2) {
      for (int k = p; k >= 1; k /= 2) {
        for (int j = k % p; j + k < kCount; j += 2 * k) {
          for (int i = 0; i < k && i + j + k < kCount; ++i) {
            if ((i + j) / (2 * p) == (i + j + k) / (2 * p)) {
              pairs[size][0] = i + j;
              pairs[size++][1] = i + j + k;
            }
          }
        }
      }
    }
  }
};

template <int kCount>
inline constexpr SortingNetwork<kCount> kNetwork;

}  // namespace wtal
