// soft_nms on the CPU: the sequential definition, one group after the other.
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "common/nms_args.h"

namespace wtal {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Kept = std::tuple<Tensor, Tensor, Tensor>;

// Selects from entries [begin, end) and writes indices and scores from `begin` on. Returns how many.
template <class T>
int64_t suppress_group(const Suppression<T>& rule, const T* segments, const T* scores, int64_t begin,
                       int64_t end, int64_t limit, int64_t* keep, T* kept_scores) {
  struct Entry {
    Interval<T> interval;
    Candidate<T> candidate;
  };
  std::vector<Entry> running;  // by index, so that the first of equal scores is the one to take
  running.reserve(end - begin);
  for (int64_t i = begin; i < end; ++i) {
    const T score = rule.admit(scores[i]);
    if (score != rule.kDropped) {
      running.push_back({make_interval(segments[2 * i], segments[2 * i + 1]), {score, i}});
    }
  }
  int64_t selected = 0;
  while (selected < limit && !running.empty()) {
    const Entry best = *std::ranges::min_element(
        running, [](const Candidate<T>& a, const Candidate<T>& b) { return a.before(b); }, &Entry::candidate);
    keep[begin + selected] = best.candidate.index;
    kept_scores[begin + selected] = best.candidate.score;
    ++selected;
    for (Entry& entry : running) {
      entry.candidate.score = entry.candidate.index == best.candidate.index
                                  ? rule.kDropped
                                  : rule.decay(entry.candidate.score, tiou(best.interval, entry.interval));
    }
    std::erase_if(running, [&](const Entry& entry) { return entry.candidate.score == rule.kDropped; });
  }
  return selected;
}

template <class T>
NmsFaults find_faults(const NmsArgs& args) {
  NmsFaults faults{kNoFault, kNoFault, kNoFault};
  const int64_t* offsets = args.offsets.const_data_ptr<int64_t>();
  const T* segments = args.segments.const_data_ptr<T>();
  const T* scores = args.scores.const_data_ptr<T>();
  for (int64_t g = args.groups; g >= 0; --g) {
    if (!offset_is_fine(offsets, args.groups, args.count, g)) faults.offsets = g;
  }
  for (int64_t i = args.count - 1; i >= 0; --i) {
    if (!segment_is_fine(segments[2 * i], segments[2 * i + 1])) faults.segments = i;
    if (!is_finite(scores[i])) faults.scores = i;
  }
  return faults;
}

template <class T>
Kept suppress(const NmsArgs& args) {
  find_faults<T>(args).check(args.count);
  const Suppression<T> rule = args.suppression<T>();
  const int64_t* offsets = args.offsets.const_data_ptr<int64_t>();
  std::vector<int64_t> keep(args.count);
  std::vector<T> scores(args.count);

  Tensor offsets_out = torch::stable::new_empty(args.offsets, {args.groups + 1});
  int64_t* const rows = offsets_out.mutable_data_ptr<int64_t>();
  rows[0] = 0;
  torch::stable::parallel_for(0, args.groups, 1, [&](int64_t first, int64_t last) {
    for (int64_t g = first; g < last; ++g) {
      rows[g + 1] =
          suppress_group(rule, args.segments.const_data_ptr<T>(), args.scores.const_data_ptr<T>(), offsets[g],
                         offsets[g + 1], args.max_per_group, keep.data(), scores.data());
    }
  });

  for (int64_t g = 0; g < args.groups; ++g) rows[g + 1] += rows[g];
  const int64_t total = rows[args.groups];
  Tensor keep_out = torch::stable::new_empty(args.offsets, {total});
  Tensor scores_out = torch::stable::new_empty(args.scores, {total});
  for (int64_t g = 0; g < args.groups; ++g) {
    const int64_t size = rows[g + 1] - rows[g];
    std::copy_n(keep.data() + offsets[g], size, keep_out.mutable_data_ptr<int64_t>() + rows[g]);
    std::copy_n(scores.data() + offsets[g], size, scores_out.mutable_data_ptr<T>() + rows[g]);
  }
  return {keep_out, scores_out, offsets_out};
}

Kept soft_nms(const Tensor& segments, const Tensor& scores, const Tensor& offsets, double sigma,
              double iou_threshold, double min_score, std::string method,
              std::optional<int64_t> max_per_group) {
  const NmsArgs args(segments, scores, offsets, sigma, iou_threshold, min_score, method, max_per_group);
  return scores.scalar_type() == ScalarType::Float ? suppress<float>(args) : suppress<double>(args);
}

STABLE_TORCH_LIBRARY_IMPL(wtal, CPU, m) { m.impl("soft_nms", TORCH_BOX(&soft_nms)); }

}  // namespace
}  // namespace wtal
