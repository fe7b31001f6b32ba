// soft_nms on the CPU: checks the values, suppresses the groups in parallel, and joins their rows.
#include <torch/csrc/stable/library.h>

#include <atomic>
#include <memory>
#include <tuple>

#include "common/nms_args.h"
#include "cpu/soft_nms_group.h"

namespace wtal {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Kept = std::tuple<Tensor, Tensor, Tensor>;

template <class T>
NmsFaults find_faults(const NmsArgs& args) {
  NmsFaults faults{kNoFault, kNoFault, kNoFault};
  const int64_t* offsets = args.offsets.const_data_ptr<int64_t>();
  const T* segments = args.segments.const_data_ptr<T>();
  const T* scores = args.scores.const_data_ptr<T>();
  for (int64_t g = args.groups; g >= 0; --g) {
    if (!offset_is_fine(offsets, args.groups, args.count, g)) faults.offsets = g;
  }
  bool fine = true;  // no early exit, so that compilers vectorise the loop
  for (int64_t i = 0; i < args.count; ++i) {
    fine &= segment_is_fine(segments[2 * i], segments[2 * i + 1]) & is_finite(scores[i]);
  }
  for (int64_t i = args.count - 1; i >= 0 && !fine; --i) {
    if (!segment_is_fine(segments[2 * i], segments[2 * i + 1])) faults.segments = i;
    if (!is_finite(scores[i])) faults.scores = i;
  }
  return faults;
}

template <class T>
Kept suppress(const NmsArgs& args) {
  find_faults<T>(args).check(args.count);
  const int64_t* offsets = args.offsets.const_data_ptr<int64_t>();
  for (int64_t g = 0; g < args.groups; ++g) {
    STD_TORCH_CHECK(offsets[g + 1] - offsets[g] < Best<T>::kNone, "soft_nms: group ", g, " has ",
                    offsets[g + 1] - offsets[g], " segments, expected fewer than ", Best<T>::kNone);
  }
  const Suppression<T> rule = args.suppression<T>();
  const T* segments = args.segments.const_data_ptr<T>();
  const T* scores = args.scores.const_data_ptr<T>();
  const auto keep = std::make_unique_for_overwrite<int64_t[]>(args.count);
  const auto kept_scores = std::make_unique_for_overwrite<T[]>(args.count);

  Tensor offsets_out = torch::stable::new_empty(args.offsets, {args.groups + 1});
  int64_t* const rows = offsets_out.mutable_data_ptr<int64_t>();
  rows[0] = 0;
  // Groups differ in size, so a thread takes a new group whenever it has finished one.
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t, int64_t) {
    IntervalIndex<T> index(widest_sweep<T>());
    for (int64_t g; (g = next.fetch_add(1, std::memory_order_relaxed)) < args.groups;) {
      const int64_t first = offsets[g];
      rows[g + 1] = suppress_group(rule, segments + 2 * first, scores + first, offsets[g + 1] - first,
                                   args.max_per_group, first, index, &keep[first], &kept_scores[first]);
    }
  };
  const auto threads = static_cast<int64_t>(torch::stable::get_num_threads());
  torch::stable::parallel_for(0, std::min(threads, args.groups), 1, work);

  for (int64_t g = 0; g < args.groups; ++g) rows[g + 1] += rows[g];
  const int64_t total = rows[args.groups];
  Tensor keep_out = torch::stable::new_empty(args.offsets, {total});
  Tensor scores_out = torch::stable::new_empty(args.scores, {total});
  for (int64_t g = 0; g < args.groups; ++g) {
    const int64_t size = rows[g + 1] - rows[g];
    std::copy_n(keep.get() + offsets[g], size, keep_out.mutable_data_ptr<int64_t>() + rows[g]);
    std::copy_n(kept_scores.get() + offsets[g], size, scores_out.mutable_data_ptr<T>() + rows[g]);
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
