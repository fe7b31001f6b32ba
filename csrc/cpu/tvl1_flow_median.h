// Median filters of 3 x 3 and 5 x 5 pixels with repeated edges: sorting networks on whole rows. The compiler
// removes the comparisons that the median does not need.
#pragma once
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "common/sorting_network.h"
#include "cpu/tvl1_flow_planes.h"

namespace wtal::flow {

WTAL_INLINE constexpr void order(float& low, float& high) {
  const float a = low, b = high;
  low = a < b ? a : b;
  high = a < b ? b : a;
}

template <int kCount, size_t... kPair>
WTAL_INLINE void sort(float* values, std::index_sequence<kPair...>) {
  (order(values[kNetwork<kCount>.pairs[kPair][0]], values[kNetwork<kCount>.pairs[kPair][1]]), ...);
}

// The rows around row y, from kReach above to kReach below; each begins kReach pixels before the image.
template <int kSide>
WTAL_INLINE void rows_around(const Plane& plane, int64_t y, const float* (&rows)[kSide]) {
  constexpr int kReach = kSide / 2;
  for (int i = 0; i < kSide; ++i) {
    rows[i] = plane.row(std::min(std::max<int64_t>(y + i - kReach, 0), plane.size().height - 1)) - kReach;
  }
}

// Filters rows [begin, end); the margins must be filled.
WTAL_INLINE void median_of_9(const Plane& plane, Plane& to, int64_t begin, int64_t end) {
  for (int64_t y = begin; y < end; ++y) {
    const float* rows[3];
    rows_around(plane, y, rows);
    float* __restrict out = to.row(y);
    for (int64_t x = 0; x < plane.size().width; ++x) {
      float values[9];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) values[i * 3 + j] = rows[i][x + j];
      }
      sort<9>(values, std::make_index_sequence<kNetwork<9>.size>{});
      out[x] = values[4];
    }
  }
}

using Five = std::array<float, 5>;

WTAL_INLINE constexpr void sort_5(Five& v) {
  order(v[0], v[1]), order(v[3], v[4]), order(v[2], v[4]), order(v[2], v[3]), order(v[1], v[4]);
  order(v[0], v[3]), order(v[0], v[2]), order(v[1], v[3]), order(v[1], v[2]);
}

// The median of 25 values whose columns are sorted: a has the least of each column, e the largest. Sorted
// rows leave the columns sorted. Then row i, column j has i j values that are not above it and
// (6 - i) (6 - j) that are not below it, counted from 1, so that 12 values cannot be the median: 6 on each
// side of it. The comparisons that lead to the median of the other 13 were found by a search.
WTAL_INLINE constexpr float median_of_columns(Five a, Five b, Five c, Five d, Five e) {
  sort_5(a), sort_5(b), sort_5(c), sort_5(d), sort_5(e);
  order(a[4], c[1]), order(b[3], d[2]), order(a[3], d[1]), order(b[4], d[1]), order(b[3], d[0]);
  order(d[0], e[1]), order(b[4], c[1]), order(b[2], e[0]), order(c[3], e[0]), order(c[2], c[3]);
  order(b[4], c[2]), order(c[1], c[3]), order(c[1], c[2]), order(c[1], d[0]), order(c[2], d[0]);
  return c[2];
}

// A network of comparisons is right for all values if it is right for all zeros and ones.
constexpr bool sorts_5() {
  for (int bits = 0; bits < 32; ++bits) {
    Five v = {};
    for (int i = 0; i < 5; ++i) v[i] = static_cast<float>(bits >> i & 1);
    sort_5(v);
    for (int i = 0; i < 4; ++i) {
      if (v[i] > v[i + 1]) return false;
    }
  }
  return true;
}

// After the rows are sorted the order of the columns does not matter: columns with ever more ones are all.
constexpr bool finds_the_median() {
  for (int number = 0; number < 6 * 6 * 6 * 6 * 6; ++number) {
    const std::array<int, 5> ones = {number / 1296, number / 216 % 6, number / 36 % 6, number / 6 % 6,
                                     number % 6};
    if (!std::is_sorted(ones.begin(), ones.end())) continue;
    std::array<Five, 5> row = {};
    int sum = 0;
    for (int column = 0; column < 5; ++column) {
      for (int i = 0; i < ones[column]; ++i, ++sum) row[4 - i][column] = 1.f;
    }
    const float expected = sum >= 13 ? 1.f : 0.f;
    if (median_of_columns(row[0], row[1], row[2], row[3], row[4]) != expected) return false;
  }
  return true;
}

static_assert(sorts_5() && finds_the_median());

WTAL_INLINE Five five(const float* values) { return {values[0], values[1], values[2], values[3], values[4]}; }

// The same for 25 pixels. A column of five is sorted once for the five medians that it takes part in.
WTAL_INLINE void median_of_25(const Plane& plane, Plane& to, int64_t begin, int64_t end) {
  const int64_t width = plane.size().width, columns = width + 4;
  std::vector<float> scratch(5 * columns);
  float* __restrict a = scratch.data();
  float* __restrict b = a + columns;
  float* __restrict c = b + columns;
  float* __restrict d = c + columns;
  float* __restrict e = d + columns;
  for (int64_t y = begin; y < end; ++y) {
    const float* rows[5];
    rows_around(plane, y, rows);
    for (int64_t x = 0; x < columns; ++x) {
      Five column = {rows[0][x], rows[1][x], rows[2][x], rows[3][x], rows[4][x]};
      sort_5(column);
      a[x] = column[0], b[x] = column[1], c[x] = column[2], d[x] = column[3], e[x] = column[4];
    }
    float* __restrict out = to.row(y);
    for (int64_t x = 0; x < width; ++x) {
      out[x] = median_of_columns(five(a + x), five(b + x), five(c + x), five(d + x), five(e + x));
    }
  }
}

WTAL_INLINE void repeat_edges(Plane& plane, int64_t reach) {
  const auto [height, width] = plane.size();
  for (int64_t y = 0; y < height; ++y) {
    float* row = plane.row(y);
    for (int64_t i = 1; i <= reach; ++i) row[-i] = row[0], row[width - 1 + i] = row[width - 1];
  }
}

}  // namespace wtal::flow
