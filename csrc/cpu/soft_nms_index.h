// An index of the segments of one group, with which soft_nms finds the segments that overlap a given one.
// Segments are sorted by start; in a large group they are first sorted by octave of length. Segments that
// overlap [a, b] start after a - (longest of the octave) and not after b. This is one contiguous range per
// octave, which has few other segments. Within a range, lines without an overlap are skipped.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "cpu/soft_nms_sweep.h"

namespace wtal {

template <class T>
class IntervalIndex {
 public:
  using Row = Index<T>;

  // Up to `by_start` rows are sorted only by start. In such a small group one line has most of the
  // overlapping segments, and octaves would spread them over more lines.
  explicit IntervalIndex(const Sweep<T>& sweep, int64_t by_start = 2048)
      : sweep_(sweep), by_start_(by_start) {}

  // Fills the index with the rows of a group that `rule` admits. The memory is kept for the next group.
  void build(const Suppression<T>& rule, const T* segments, const T* scores, int64_t size) {
    rows_ = 0;
    inverse_ = exact_inverse(rule.sigma);
    reserve(size);
    for (int64_t i = 0; i < size; ++i) {
      start_[rows_] = segments[2 * i];
      end_[rows_] = segments[2 * i + 1];
      score_[rows_] = scores[i];
      row_[rows_] = static_cast<Row>(i);
      rows_ += rule.admit(scores[i]) != rule.kDropped;
    }
    octaves_.clear();
    if (rows_ > kLine) {
      sort();
    } else {
      octaves_.push_back({std::numeric_limits<T>::infinity(), T(0), T(0), 0, 1});
      bounds_.assign({0, rows_});
    }
    settle();
  }

  // The next row to take; its score is kDropped if no row is left.
  Best<T> best() const {
    return sweep_.select(highest_.data(), static_cast<int64_t>(highest_.size()), score_.data(), row_.data());
  }

  // The exact score of a row; best() may give 0 for -0.
  T score(Row row) const { return score_[place_[row]]; }

  // Removes a row and lowers the scores that overlap it.
  void take(const Suppression<T>& rule, Row row) {
    const int64_t at = place_[row];
    const Interval<T> taken = make_interval(start_[at], end_[at]);
    score_[at] = rule.kDropped;
    int64_t swept = 0;  // all rows before this one are processed
    for (const Octave& octave : octaves_) {
      const int64_t first = bounds_[octave.cell(taken.start - octave.longest)];
      const int64_t last = bounds_[octave.cell(taken.end) + 1];
      if (first == last) continue;
      // Rounding to whole lines has no cost and no effect on results: without overlap a weight is exactly 1.
      const int64_t begin = std::max(first / kLine * kLine, swept), end = (last + kLine - 1) / kLine * kLine;
      if (begin >= end) continue;
      swept = end;
      for (int64_t block = begin / kBlock; block * kBlock < end; ++block) {
        const int64_t low = std::max(begin, block * kBlock), high = std::min(end, (block + 1) * kBlock);
        const bool changed =
            sweep_.decay(rule, inverse_, taken, &start_[low], &end_[low], &score_[low], high - low);
        if (changed || block == at / kBlock) summarize(block);
      }
    }
    // Removed rows are still visited. They are deleted from time to time, so that the cost per selection
    // stays constant.
    if (++taken_ * kCompactEvery > rows_ && rows_ > kLine) compact();
  }

 private:
  static constexpr int64_t kCompactEvery = 3, kRowsPerCell = 8;
  static constexpr int kOctaves = 10;

  struct Octave {
    T longest, origin, cells_per_unit;  // no segment in the octave is longer than `longest`
    int64_t first_cell, cells;

    // Never decreases as the start grows, despite rounding. Starts before the origin or after the last cell
    // are clamped.
    int64_t cell(T start) const {
      const T position = (start - origin) * cells_per_unit;
      if (!(position > T(0))) return first_cell;
      return first_cell + (position < T(cells - 1) ? static_cast<int64_t>(position) : cells - 1);
    }
  };

  // The exponent of a normal number. Every length is one: 1e-6 is the smallest.
  static int exponent_of(T length) {
    using Constants = ExpConstants<T>;
    return static_cast<int>(std::bit_cast<typename Constants::Bits>(length) >> Constants::kMantissa) -
           Constants::kBias;
  }

  void reserve(int64_t size) {
    const auto padded = static_cast<size_t>((size + kBlock - 1) / kBlock * kBlock + kBlock);
    if (start_.size() >= padded) return;
    for (auto* values : {&start_, &end_, &score_, &scratch_}) values->resize(padded);
    row_.resize(padded);
    row_scratch_.resize(padded);
    place_.resize(padded);
    key_.resize(padded);
  }

  // Counting sort by (octave, cell), stable.
  void sort() {
    T longest = 0, low = start_[0], high = start_[0];
    for (int64_t i = 0; i < rows_; ++i) {
      longest = std::max(longest, make_interval(start_[i], end_[i]).length);
      low = std::min(low, start_[i]);
      high = std::max(high, start_[i]);
    }
    const int top = exponent_of(longest);
    const bool single = rows_ <= by_start_;
    int64_t members[kOctaves] = {};
    for (int64_t i = 0; i < rows_; ++i) {
      const int below = single ? 0 : top - exponent_of(make_interval(start_[i], end_[i]).length);
      key_[i] = below < kOctaves ? below : kOctaves - 1;
      ++members[key_[i]];
    }
    const T span = high - low;
    int64_t cells = 0, number[kOctaves];
    for (int octave = 0; octave < kOctaves; ++octave) {
      number[octave] = static_cast<int64_t>(octaves_.size());
      if (members[octave] == 0) continue;
      // Longer than every length in the octave, even after rounding: lengths are below 2^(exponent + 1). It
      // may be infinite.
      const T limit = std::ldexp(T(1), top - octave + 1);
      const T fair = T(members[octave]) / T(kRowsPerCell);
      const T wanted = single ? fair : std::min(T(8) * span / limit, fair);
      const int64_t here = wanted >= T(1) ? static_cast<int64_t>(wanted) : 1;  // also if the span is infinite
      octaves_.push_back({limit, low, T(here) / span, cells, here});
      cells += here;
    }
    bounds_.assign(cells + 1, 0);
    for (int64_t i = 0; i < rows_; ++i) {
      key_[i] = octaves_[number[key_[i]]].cell(start_[i]);
      ++bounds_[key_[i] + 1];
    }
    for (int64_t cell = 0; cell < cells; ++cell) bounds_[cell + 1] += bounds_[cell];
    next_.assign(bounds_.begin(), bounds_.end() - 1);
    for (int64_t i = 0; i < rows_; ++i) key_[i] = next_[key_[i]]++;
    for (auto* values : {&start_, &end_, &score_}) {
      for (int64_t i = 0; i < rows_; ++i) scratch_[key_[i]] = (*values)[i];
      std::swap(*values, scratch_);
    }
    for (int64_t i = 0; i < rows_; ++i) row_scratch_[key_[i]] = row_[i];
    std::swap(row_, row_scratch_);
  }

  // Deletes removed rows; order and cells stay the same.
  void compact() {
    int64_t kept = 0, cell = 0;
    const auto cells = static_cast<int64_t>(bounds_.size()) - 1;
    for (; cell < cells; ++cell) {
      const int64_t first = bounds_[cell];
      bounds_[cell] = kept;
      for (int64_t i = first; i < bounds_[cell + 1]; ++i) {
        start_[kept] = start_[i];
        end_[kept] = end_[i];
        row_[kept] = row_[i];
        const T score = score_[kept] = score_[i];
        kept += score != Suppression<T>::kDropped;
      }
    }
    bounds_[cells] = kept;
    rows_ = kept;
    settle();
  }

  // Called when the order of rows is final: stores the place of each row and clears the places after the
  // last.
  void settle() {
    taken_ = 0;
    for (int64_t i = 0; i < rows_; ++i) place_[row_[i]] = i;
    const int64_t blocks = (rows_ + kBlock - 1) / kBlock;
    for (int64_t i = rows_; i < blocks * kBlock; ++i) {
      start_[i] = end_[i] = T(0);
      score_[i] = Suppression<T>::kDropped;
      row_[i] = Best<T>::kNone;
    }
    const auto padded = static_cast<size_t>((blocks + kLine - 1) / kLine * kLine);
    highest_.assign(padded, Suppression<T>::kDropped);
    for (int64_t block = 0; block < blocks; ++block) summarize(block);
  }

  void summarize(int64_t block) { highest_[block] = sweep_.highest(&score_[block * kBlock], kBlock); }

  const Sweep<T>& sweep_;
  const int64_t by_start_;
  int64_t rows_ = 0, taken_ = 0;  // rows in the index; rows selected since the last compaction
  std::vector<T> start_, end_, score_,
      scratch_;                                 // [rows_], padded to whole blocks with removed rows
  std::vector<Row> row_, row_scratch_, place_;  // row_[place] is the row of the group, place_[row] its place
  std::vector<int64_t> key_, next_;
  std::vector<Octave> octaves_;
  std::vector<int64_t> bounds_;  // [cells + 1]: the places of each cell
  std::vector<T> highest_;       // highest score of each block, padded to whole lines
  T inverse_ = 0;                // exact_inverse of the group's sigma
};

}  // namespace wtal
