// What group_proposals shares between CPU and CUDA: runs, columns of scores, the cells of a call, and the
// score of a proposal.
#pragma once
#include <cfloat>
#include <cstdint>
#include <limits>

#include "common/host_device.h"

namespace wtal {

enum class ProposalScore { kMax, kMean, kOuterInner };

// The snippets [start, end).
struct Run {
  int64_t start, end;
};

// The lowest and the highest of some scores; both are NaN if any score is NaN.
template <class T>
struct ScoreRange {
  T low = std::numeric_limits<T>::infinity(), high = -std::numeric_limits<T>::infinity();

  WTAL_HOST_DEVICE void add(T score) { add(score, score); }
  WTAL_HOST_DEVICE void add(T lowest, T highest) {
    low = low <= lowest ? low : (low == low ? lowest : low);
    high = high >= highest ? high : (high == high ? highest : high);
  }
  // The divisor of (score - low); for equal scores it is tiny, so that the results are zero.
  WTAL_HOST_DEVICE T spread() const {
    // Macros, because nvcc does not allow device code to call numeric_limits.
    constexpr T kTiny = sizeof(T) == sizeof(double) ? static_cast<T>(DBL_MIN) : static_cast<T>(FLT_MIN);
    const T spread = high - low;
    return spread < kTiny ? kTiny : spread;
  }
};

// The scores of one video and class over time.
template <class T>
struct Column {
  const T* first;
  int64_t stride, length;
  bool rescaled = false;
  T low = 0, spread = 1;

  WTAL_HOST_DEVICE T operator[](int64_t t) const {
    const T score = first[t * stride];
    return rescaled ? (score - low) / spread : score;
  }
  // NaN and positions outside the video are above no threshold.
  WTAL_HOST_DEVICE bool above(int64_t t, T threshold) const {
    return t >= 0 && t < length && (*this)[t] > threshold;
  }
  // A sequential sum in double precision, so that it is bitwise equal on every device.
  WTAL_HOST_DEVICE double sum(double sum, int64_t begin, int64_t end) const {
    for (int64_t t = begin; t < end; ++t) sum += static_cast<double>((*this)[t]);
    return sum;
  }
};

template <class T>
struct Grouping {
  const T* scores;  // [B, T, C], strides below
  int64_t stride_b, stride_t, stride_c;
  int64_t batch, snippets, classes, levels;
  const T* thresholds;     // [K]
  const int64_t* lengths;  // [B] or null
  const bool* keep;        // [B, C] or null
  int64_t min_length;
  ProposalScore score;
  bool unique;
  bool rescale;                               // first scale every column to [0, 1] over its own length
  const T *low = nullptr, *spread = nullptr;  // [B, C], the values for `rescale`; only on CUDA

  // A cell is one (b, c, k); cells are numbered in this order.
  WTAL_HOST_DEVICE int64_t columns() const { return batch * classes; }
  WTAL_HOST_DEVICE int64_t cells() const { return batch * classes * levels; }

  WTAL_HOST_DEVICE Column<T> column(int64_t b, int64_t c) const {
    int64_t length = lengths ? lengths[b] : snippets;
    length = length < 0 ? 0 : (length > snippets ? snippets : length);
    if (keep && !keep[b * classes + c]) length = 0;
    // Without snippets the pointer may be null, and arithmetic on a null pointer is undefined.
    Column<T> column{snippets > 0 ? scores + b * stride_b + c * stride_c : scores, stride_t, length};
    if (low) {
      column.rescaled = true;
      column.low = low[b * classes + c];
      column.spread = spread[b * classes + c];
    }
    return column;
  }
};

template <class T>
WTAL_HOST_DEVICE inline T proposal_score(ProposalScore kind, const Column<T>& column, Run run) {
  if (kind == ProposalScore::kMax) {
    T best = column[run.start];
    for (int64_t t = run.start + 1; t < run.end; ++t) best = column[t] > best ? column[t] : best;
    return best;
  }
  const int64_t length = run.end - run.start;
  const double inside = column.sum(0.0, run.start, run.end) / static_cast<double>(length);
  if (kind == ProposalScore::kMean) return static_cast<T>(inside);

  // Outer-inner contrast: a quarter of the length to each side, rounded toward zero like Python's int().
  const double margin = 0.25 * static_cast<double>(length);
  const int64_t last = run.end - 1;
  int64_t low = static_cast<int64_t>(static_cast<double>(run.start) - margin);
  int64_t high = static_cast<int64_t>(static_cast<double>(last) + margin);
  low = low < 0 ? 0 : low;
  high = high > column.length - 1 ? column.length - 1 : high;
  const int64_t outer = (run.start - low) + (high - last);
  if (outer == 0) return static_cast<T>(inside);
  const double left = column.sum(0.0, low, run.start);
  return static_cast<T>(inside - column.sum(left, run.end, high + 1) / static_cast<double>(outer));
}

}  // namespace wtal
