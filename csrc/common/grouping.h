// The definition of group_proposals that CPU and CUDA share: what one (video, class, threshold) gives.
#pragma once
#include <cstdint>

#include "common/host_device.h"

namespace wtal {

enum class ProposalScore { kMax, kMean, kOuterInner };

// Snippets [start, end).
struct Run {
  int64_t start, end;
};

// Scores of one video and class over time.
template <class T>
struct Column {
  const T* first;
  int64_t stride, length;

  WTAL_HOST_DEVICE T operator[](int64_t t) const { return first[t * stride]; }
  // NaN is above nothing, and so is what lies outside the video.
  WTAL_HOST_DEVICE bool above(int64_t t, T threshold) const {
    return t >= 0 && t < length && (*this)[t] > threshold;
  }
  // Sequential in double precision, so that every device adds up to the same bits.
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

  // A cell is one (b, c, k), numbered in this order.
  WTAL_HOST_DEVICE int64_t cells() const { return batch * classes * levels; }

  WTAL_HOST_DEVICE Column<T> column(int64_t b, int64_t c) const {
    int64_t length = lengths ? lengths[b] : snippets;
    length = length < 0 ? 0 : (length > snippets ? snippets : length);
    if (keep && !keep[b * classes + c]) length = 0;
    return {scores + b * stride_b + c * stride_c, stride_t, length};
  }
};

// Whether a lower threshold (of equal ones: an earlier one) gives this run too: it holds the run for sure,
// and ends where the run ends iff neither neighbour is above it.
template <class T>
WTAL_HOST_DEVICE inline bool given_before(const Grouping<T>& grouping, const Column<T>& column, int64_t k,
                                          Run run) {
  const T threshold = grouping.thresholds[k];
  for (int64_t other = 0; other < grouping.levels; ++other) {
    const T lower = grouping.thresholds[other];
    if (!(lower < threshold || (lower == threshold && other < k))) continue;
    if (!column.above(run.start - 1, lower) && !column.above(run.end, lower)) return true;
  }
  return false;
}

// Moves on to the next proposal after `run` (start with {0, 0}); false when there is none.
template <class T>
WTAL_HOST_DEVICE inline bool next_proposal(const Grouping<T>& grouping, const Column<T>& column, int64_t k,
                                           Run& run) {
  const T threshold = grouping.thresholds[k];
  for (;;) {
    run.start = run.end;
    while (run.start < column.length && !(column[run.start] > threshold)) ++run.start;
    if (run.start >= column.length) return false;
    run.end = run.start + 1;
    while (run.end < column.length && column[run.end] > threshold) ++run.end;
    if (run.end - run.start < grouping.min_length) continue;
    if (!grouping.unique || !given_before(grouping, column, k, run)) return true;
  }
}

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

  // Outer-inner contrast: a quarter of the length to each side, rounded toward zero as Python's int() does.
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

template <class T>
WTAL_HOST_DEVICE inline int64_t count_cell(const Grouping<T>& grouping, int64_t cell) {
  const int64_t k = cell % grouping.levels, c = cell / grouping.levels % grouping.classes;
  const Column<T> column = grouping.column(cell / grouping.levels / grouping.classes, c);
  int64_t count = 0;
  for (Run run{0, 0}; next_proposal(grouping, column, k, run);) ++count;
  return count;
}

// Writes the proposals of a cell from row `row` on. segments [P, 2], owner [P, 3], score [P].
template <class T>
WTAL_HOST_DEVICE inline void fill_cell(const Grouping<T>& grouping, int64_t cell, int64_t row,
                                       int64_t* segments, int64_t* owner, T* score) {
  const int64_t k = cell % grouping.levels, c = cell / grouping.levels % grouping.classes;
  const int64_t b = cell / grouping.levels / grouping.classes;
  const Column<T> column = grouping.column(b, c);
  for (Run run{0, 0}; next_proposal(grouping, column, k, run); ++row) {
    segments[2 * row] = run.start;
    segments[2 * row + 1] = run.end;
    owner[3 * row] = b;
    owner[3 * row + 1] = c;
    owner[3 * row + 2] = k;
    score[row] = proposal_score(grouping.score, column, run);
  }
}

}  // namespace wtal
