// The loop that this field's post-processing runs on the CPU, with a C interface: the algorithm of
// ActionFormer's libs/utils/csrc/nms_cpu.cpp (softnms), itself Bodla et al.'s. Selection by swapping, O(N^2).
//   tuned: what its users could add in two lines: stop at the limit, skip segments that do not overlap.
//   exact: wtal's exp and lowest index first among equal scores in place of libm's and of the order that
//   swaps leave,
//          so that results can be compared to the bit. For checking, not for timing.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/exp.h"

namespace {

template <bool kTuned, bool kExact>
int64_t soft_nms(const float* segments, const float* scores, int64_t size, float sigma, float min_score,
                 int64_t limit, int64_t* keep, float* kept_scores) {
  std::vector<float> x1, x2, area, score;
  std::vector<int64_t> index;
  for (int64_t i = 0; i < size; ++i) {
    if (kExact && scores[i] < min_score) continue;
    x1.push_back(segments[2 * i]);
    x2.push_back(segments[2 * i + 1]);
    area.push_back(x2.back() - x1.back() + 1e-6f);
    score.push_back(scores[i]);
    index.push_back(i);
  }
  auto left = static_cast<int64_t>(index.size());
  const auto swap = [&](int64_t a, int64_t b) {
    std::swap(x1[a], x1[b]);
    std::swap(x2[a], x2[b]);
    std::swap(area[a], area[b]);
    std::swap(score[a], score[b]);
    std::swap(index[a], index[b]);
  };
  int64_t selected = 0;
  for (; selected < left && (!kTuned || selected < limit); ++selected) {
    int64_t best = selected;
    for (int64_t i = selected + 1; i < left; ++i) {
      if (score[best] < score[i] || (kExact && score[best] == score[i] && index[i] < index[best])) best = i;
    }
    swap(selected, best);
    const float start = x1[selected], end = x2[selected], own = area[selected];
    if (selected < limit) {
      keep[selected] = index[selected];
      kept_scores[selected] = score[selected];
    }
    for (int64_t i = selected + 1; i < left;) {
      const float inter = std::max(0.0f, std::min(end, x2[i]) - std::max(start, x1[i]));
      if (kTuned && inter <= 0) {
        ++i;
        continue;
      }
      const float overlap = inter / (own + area[i] - inter), x = -(overlap * overlap) / sigma;
      score[i] *= kExact ? wtal::exp_nonpositive(x) : std::exp(x);
      if (score[i] < min_score) {
        swap(i, --left);
      } else {
        ++i;
      }
    }
  }
  return std::min(selected, limit);
}

}  // namespace

// offsets [groups + 1]; keep and kept_scores [N], each group's from its offset on; counts [groups].
extern "C" void plain_soft_nms(const float* segments, const float* scores, const int64_t* offsets,
                               int64_t groups, float sigma, float min_score, int64_t limit, int tuned,
                               int exact, int64_t* keep, float* kept_scores, int64_t* counts) {
  const auto loop = exact ? (tuned ? soft_nms<true, true> : soft_nms<false, true>)
                          : (tuned ? soft_nms<true, false> : soft_nms<false, false>);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = offsets[g];
    counts[g] = loop(segments + 2 * first, scores + first, offsets[g + 1] - first, sigma, min_score, limit,
                     keep + first, kept_scores + first);
    for (int64_t i = 0; i < counts[g]; ++i) keep[first + i] += first;
  }
}
