// soft_nms of one group on the CPU. It is the sequential definition, but each selection visits only the
// segments that may overlap the selected one.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cpu/soft_nms_index.h"

namespace wtal {

// Selects at most `limit` of `size` rows. Writes their numbers, counted from `first_row`, and their scores,
// in the order of selection. Returns the number of selected rows.
template <class T>
int64_t suppress_group(const Suppression<T>& rule, const T* segments, const T* scores, int64_t size,
                       int64_t limit, int64_t first_row, IntervalIndex<T>& index, int64_t* keep,
                       T* kept_scores) {
  if (rule.drops_all()) limit = std::min<int64_t>(limit, 1);
  index.build(rule, segments, scores, size);
  for (int64_t selected = 0; selected < limit; ++selected) {
    const Best<T> best = index.best();
    if (best.score == rule.kDropped) return selected;
    keep[selected] = first_row + best.index;
    kept_scores[selected] = index.score(best.index);
    index.take(rule, best.index);
  }
  return limit;
}

}  // namespace wtal
