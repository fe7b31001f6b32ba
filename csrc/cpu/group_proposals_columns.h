// group_proposals of a few (video, class) columns on the CPU. Each column is copied once into contiguous
// memory. Its runs at a threshold are the edges of a bit mask.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "common/proposal_rule.h"
#include "cpu/threshold_masks.h"

namespace wtal {

// The proposals of some neighbouring columns, in the order of the outputs.
template <class T>
struct ColumnProposals {
  std::vector<Run> runs;
  std::vector<T> scores;
  std::vector<int64_t> counts;  // for each (column, threshold)
};

// For each threshold the next lower one (or the previous equal one): if any lower threshold gives a run, the
// next lower one gives it too. NaN if there is none. No score is above a threshold that is NaN.
template <class T>
std::vector<T> next_lower(const T* thresholds, int64_t levels) {
  std::vector<int64_t> order;
  for (int64_t k = 0; k < levels; ++k) {
    if (thresholds[k] == thresholds[k]) order.push_back(k);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return thresholds[a] < thresholds[b]; });
  std::vector<T> lower(levels, std::numeric_limits<T>::quiet_NaN());
  for (size_t i = 1; i < order.size(); ++i) lower[order[i]] = thresholds[order[i - 1]];
  return lower;
}

template <class T>
class ColumnGrouper {
 public:
  ColumnGrouper(const Grouping<T>& grouping, MasksAbove<T> masks_above)
      : grouping_(grouping),
        masks_above_(masks_above),
        lower_(next_lower(grouping.thresholds, grouping.levels)),
        padded_((grouping.snippets + 63) / 64 * 64),
        words_(padded_ / 64) {}

  // Appends the proposals of columns [first, last); column b * classes + c is class c of video b.
  void group(int64_t first, int64_t last, ColumnProposals<T>& out) {
    for (int64_t column = first; column < last;) {
      const int64_t b = column / grouping_.classes;
      const int64_t next = std::min({last, (b + 1) * grouping_.classes, column + kColumns});
      gather(b, column - b * grouping_.classes, next - column);
      for (int64_t i = 0; i < next - column; ++i) group_one(i, out);
      column = next;
    }
  }

 private:
  static constexpr int64_t kColumns = 16, kTile = 256;

  // Copies columns c, c + 1, ... of a video into gathered_, tile by tile so that the rows stay in cache.
  void gather(int64_t b, int64_t c, int64_t count) {
    gathered_.resize(kColumns * padded_);
    int64_t longest = 0;
    for (int64_t i = 0; i < count; ++i) {
      columns_[i] = grouping_.column(b, c + i);
      longest = std::max(longest, columns_[i].length);
    }
    for (int64_t tile = 0; tile < longest; tile += kTile) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t end = std::min(tile + kTile, columns_[i].length);
        for (int64_t t = tile; t < end; ++t)
          gathered_[i * padded_ + t] = columns_[i].first[t * columns_[i].stride];
      }
    }
  }

  void group_one(int64_t i, ColumnProposals<T>& out) {
    T* const scores = gathered_.data() + i * padded_;
    const int64_t length = columns_[i].length, words = (length + 63) / 64;
    if (grouping_.rescale) rescale(scores, length);
    std::fill(scores + length, scores + words * 64, std::numeric_limits<T>::quiet_NaN());  // never above
    const Column<T> column{scores, 1, length};
    for (int64_t k = 0; k < grouping_.levels; ++k) {
      const size_t before = out.runs.size();
      masks_above_(scores, words, grouping_.thresholds[k], words_.data());
      find_runs(column, words, lower_[k], out.runs);
      out.counts.push_back(static_cast<int64_t>(out.runs.size() - before));
      for (size_t run = before; run < out.runs.size(); ++run) {
        out.scores.push_back(grouping_.score == ProposalScore::kMax
                                 ? maximum(scores, out.runs[run])
                                 : proposal_score(grouping_.score, column, out.runs[run]));
      }
    }
  }

  // The maximum of a run, which has no NaN. Separate lanes let compilers vectorise it.
  static T maximum(const T* scores, Run run) {
    constexpr int kLanes = 16;
    int64_t t = run.start;
    T best = scores[t];
    if (run.end - t >= 2 * kLanes) {
      T lanes[kLanes];
      std::copy_n(scores + t, kLanes, lanes);
      for (t += kLanes; t + kLanes <= run.end; t += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) {
          lanes[lane] = scores[t + lane] > lanes[lane] ? scores[t + lane] : lanes[lane];
        }
      }
      for (const T lane : lanes) best = lane > best ? lane : best;
    }
    for (; t < run.end; ++t) best = scores[t] > best ? scores[t] : best;
    return best;
  }

  // A run starts or ends where a bit differs from the previous bit.
  void find_runs(const Column<T>& column, int64_t words, T lower, std::vector<Run>& runs) const {
    int64_t start = -1;
    uint64_t last_bit = 0;
    for (int64_t w = 0; w < words; ++w) {
      uint64_t edges = words_[w] ^ (words_[w] << 1 | last_bit);
      last_bit = words_[w] >> 63;
      for (; edges != 0; edges &= edges - 1) {
        const int64_t t = 64 * w + std::countr_zero(edges);
        if (start < 0) {
          start = t;
        } else {
          add({start, t}, column, lower, runs);
          start = -1;
        }
      }
    }
    if (start >= 0) add({start, column.length}, column, lower, runs);
  }

  void add(Run run, const Column<T>& column, T lower, std::vector<Run>& runs) const {
    if (run.end - run.start < grouping_.min_length) return;
    // lower == lower: there is a lower threshold. It gives the same run iff neither neighbour is above it.
    if (grouping_.unique && lower == lower && !column.above(run.start - 1, lower) &&
        !column.above(run.end, lower)) {
      return;
    }
    runs.push_back(run);
  }

  void rescale(T* scores, int64_t length) const {
    ScoreRange<T> range;
    for (int64_t t = 0; t < length; ++t) range.add(scores[t]);
    const T low = range.low, spread = range.spread();
    for (int64_t t = 0; t < length; ++t) scores[t] = (scores[t] - low) / spread;
  }

  const Grouping<T>& grouping_;
  MasksAbove<T> masks_above_;
  std::vector<T> lower_;
  int64_t padded_;
  std::vector<uint64_t> words_;
  std::vector<T> gathered_;  // [kColumns, padded_]
  Column<T> columns_[kColumns];
};

}  // namespace wtal
