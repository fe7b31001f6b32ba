// The decay of a score in soft_nms, and the order of equal scores; the same on CPU and CUDA. The arithmetic
// is that of ActionFormer's 1-D soft-NMS.
#pragma once
#include <limits>

#include "common/exp.h"
#include "common/host_device.h"
#include "common/interval.h"

namespace wtal {

enum class SuppressionMethod { kHard, kLinear, kGaussian };

// The settings, in the precision of the scores.
template <class T>
struct Suppression {
  SuppressionMethod method;
  T sigma, iou_threshold, min_score;

  // The score of a removed segment. It stays removed under every decay: -inf times 0 is NaN, and admit
  // removes NaN. Scores of the remaining segments are >= min_score >= 0.
  static constexpr T kDropped = -std::numeric_limits<T>::infinity();

  WTAL_HOST_DEVICE T admit(T score) const { return score >= min_score ? score : kDropped; }

  // Without an overlap a score stays bitwise equal, except if tIoU 0 already reaches a hard threshold.
  WTAL_HOST_DEVICE bool drops_all() const {
    return method == SuppressionMethod::kHard && iou_threshold <= T(0);
  }

  // The new score of a segment that overlaps a selected one by `overlap` (tIoU). With kInverse it multiplies
  // by `inverse` instead of dividing by sigma; the caller makes sure that both have the same bits.
  template <bool kInverse = false>
  WTAL_HOST_DEVICE T decay(T score, T overlap, [[maybe_unused]] T inverse = T(0)) const {
    if (method == SuppressionMethod::kGaussian) {
      const T negative = -(overlap * overlap);
      score = score * exp_nonpositive<T>(kInverse ? negative * inverse : negative / sigma);
    } else if (overlap >= iou_threshold) {
      if (method == SuppressionMethod::kHard) return kDropped;
      score = score * (T(1) - overlap);
    }
    return admit(score);
  }

  // The new score of a segment after `taken` is selected. Most segments do not overlap and need no
  // arithmetic.
  WTAL_HOST_DEVICE T after(T score, const Interval<T>& taken, const Interval<T>& own) const {
    const bool apart = taken.end <= own.start || own.end <= taken.start;
    return apart && !drops_all() ? score : decay(score, tiou(taken, own));
  }
};

// A segment that is not removed; for equal scores the lower index comes first.
template <class T>
struct Candidate {
  T score;
  int64_t index;

  WTAL_HOST_DEVICE bool before(const Candidate& other) const {
    return score > other.score || (score == other.score && index < other.index);
  }
};

}  // namespace wtal
