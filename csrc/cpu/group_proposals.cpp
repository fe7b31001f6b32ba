// group_proposals on the CPU: count what each (video, class, threshold) gives, then write it where it
// belongs.
#include <torch/csrc/stable/library.h>

#include <tuple>
#include <vector>

#include "common/proposals_args.h"

namespace wtal {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Proposals = std::tuple<Tensor, Tensor, Tensor>;

constexpr int64_t kCellsPerTask = 16;

template <class T>
Proposals group(const ProposalsArgs& args) {
  const Grouping<T> grouping = args.grouping<T>();
  const int64_t cells = grouping.cells();
  std::vector<int64_t> rows(cells + 1, 0);  // rows[cell + 1] becomes the end of the cell's rows
  torch::stable::parallel_for(0, cells, kCellsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t cell = begin; cell < end; ++cell) rows[cell + 1] = count_cell(grouping, cell);
  });
  for (int64_t cell = 0; cell < cells; ++cell) rows[cell + 1] += rows[cell];

  const int64_t total = rows[cells];
  Tensor segments = torch::stable::new_empty(args.scores, {total, 2}, ScalarType::Long);
  Tensor owner = torch::stable::new_empty(args.scores, {total, 3}, ScalarType::Long);
  Tensor score = torch::stable::new_empty(args.scores, {total});
  int64_t* const segments_out = segments.mutable_data_ptr<int64_t>();
  int64_t* const owner_out = owner.mutable_data_ptr<int64_t>();
  T* const score_out = score.mutable_data_ptr<T>();
  torch::stable::parallel_for(0, cells, kCellsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t cell = begin; cell < end; ++cell) {
      if (rows[cell] < rows[cell + 1]) {
        fill_cell(grouping, cell, rows[cell], segments_out, owner_out, score_out);
      }
    }
  });
  return {segments, owner, score};
}

Proposals group_proposals(const Tensor& scores, const Tensor& thresholds,
                          const std::optional<Tensor>& lengths, const std::optional<Tensor>& keep,
                          int64_t min_length, std::string score, bool unique) {
  const ProposalsArgs args(scores, thresholds, lengths, keep, min_length, score, unique);
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
