// group_proposals on the CPU: each thread takes neighbouring columns, and the results are joined at the end.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <atomic>
#include <tuple>
#include <vector>

#include "common/proposals_args.h"
#include "cpu/group_proposals_columns.h"

namespace wtal {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Proposals = std::tuple<Tensor, Tensor, Tensor>;

// Videos differ in length, so a thread takes a new part whenever it has finished one.
constexpr int64_t kPartsPerThread = 8;

template <class T>
Proposals group(const ProposalsArgs& args) {
  const Grouping<T> grouping = args.grouping<T>();
  const int64_t columns = grouping.batch * grouping.classes;
  const auto threads = static_cast<int64_t>(torch::stable::get_num_threads());
  const int64_t parts =
      threads == 1 ? std::min<int64_t>(columns, 1) : std::min(columns, threads * kPartsPerThread);
  const auto first_column = [&](int64_t part) { return part * columns / parts; };
  std::vector<ColumnProposals<T>> found(parts);
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, std::min(threads, parts), 1, [&](int64_t, int64_t) {
    ColumnGrouper<T> grouper(grouping, widest_masks_above<T>());
    for (int64_t part; (part = next.fetch_add(1, std::memory_order_relaxed)) < parts;) {
      grouper.group(first_column(part), first_column(part + 1), found[part]);
    }
  });

  std::vector<int64_t> rows(parts + 1, 0);
  for (int64_t part = 0; part < parts; ++part) {
    rows[part + 1] = rows[part] + static_cast<int64_t>(found[part].runs.size());
  }
  Tensor segments = torch::stable::new_empty(args.scores, {rows[parts], 2}, ScalarType::Long);
  Tensor owner = torch::stable::new_empty(args.scores, {rows[parts], 3}, ScalarType::Long);
  Tensor score = torch::stable::new_empty(args.scores, {rows[parts]});
  auto* const segments_out = reinterpret_cast<Run*>(segments.mutable_data_ptr<int64_t>());
  int64_t* const owner_out = owner.mutable_data_ptr<int64_t>();
  T* const score_out = score.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const ColumnProposals<T>& own = found[part];
      std::copy(own.runs.begin(), own.runs.end(), segments_out + rows[part]);
      std::copy(own.scores.begin(), own.scores.end(), score_out + rows[part]);
      int64_t* to = owner_out + 3 * rows[part];
      const int64_t* count = own.counts.data();
      for (int64_t column = first_column(part); column < first_column(part + 1); ++column) {
        for (int64_t k = 0; k < grouping.levels; ++k, ++count) {
          for (int64_t i = 0; i < *count; ++i, to += 3) {
            to[0] = column / grouping.classes;
            to[1] = column % grouping.classes;
            to[2] = k;
          }
        }
      }
    }
  });
  return {segments, owner, score};
}

Proposals group_proposals(const Tensor& scores, const Tensor& thresholds,
                          const std::optional<Tensor>& lengths, const std::optional<Tensor>& keep,
                          int64_t min_length, std::string score, bool unique, bool rescale) {
  const ProposalsArgs args(scores, thresholds, lengths, keep, min_length, score, unique, rescale);
  if (args.lengths) {
    const int64_t* length = args.lengths->const_data_ptr<int64_t>();
    for (int64_t b = 0; b < scores.size(0); ++b) {
      STD_TORCH_CHECK(length[b] >= 0 && length[b] <= scores.size(1), "group_proposals: lengths[", b, "] is ",
                      length[b], ", expected 0 to T = ", scores.size(1));
    }
  }
  return scores.scalar_type() == ScalarType::Float ? group<float>(args) : group<double>(args);
}

STABLE_TORCH_LIBRARY_IMPL(wtal, CPU, m) { m.impl("group_proposals", TORCH_BOX(&group_proposals)); }

}  // namespace
}  // namespace wtal
