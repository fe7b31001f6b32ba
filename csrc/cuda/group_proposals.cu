// group_proposals on CUDA: gather the columns, measure them if they are to be rescaled, count, number the
// rows, one wait for the number of proposals, write.
#include <torch/csrc/stable/library.h>

#include <limits>
#include <tuple>

#include "common/proposals_args.h"
#include "cuda/capability.h"
#include "cuda/group_proposals.cuh"
#include "cuda/scan.cuh"
#include "cuda/stream.h"

namespace wtal {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Proposals = std::tuple<Tensor, Tensor, Tensor>;

template <class T>
Proposals group(const ProposalsArgs& args) {
  Grouping<T> grouping = args.grouping<T>();
  const int64_t cells = grouping.cells();
  const unsigned blocks = blocks_for(grouping.columns(), kGroupingWarps);
  const cudaStream_t stream = current_stream(args.scores);

  // A warp reads a column in whole lines if its snippets lie side by side.
  const bool gathers = cells > 0 && grouping.snippets > 0 && grouping.stride_t != 1;
  Tensor gathered =
      torch::stable::new_empty(args.scores, {gathers ? grouping.columns() * grouping.snippets : 0});
  if (gathers) {
    const int64_t tiles = gather_blocks(grouping);
    STD_TORCH_CHECK(tiles <= std::numeric_limits<int>::max(), "group_proposals: scores has shape ",
                    shape_of(args.scores),
                    ", expected fewer than 2^31 tiles of 32 x 32 snippets and classes");
    launch("group_proposals: gathering the columns", gather_columns_kernel<T>, static_cast<unsigned>(tiles),
           kGroupingThreads, 0, stream, grouping, gathered.mutable_data_ptr<T>());
    grouping.scores = gathered.const_data_ptr<T>();
    grouping.stride_b = grouping.classes * grouping.snippets;
    grouping.stride_c = grouping.snippets;
    grouping.stride_t = 1;
  }

  const int64_t columns = grouping.rescale && cells > 0 ? grouping.columns() : 0;
  Tensor low = torch::stable::new_empty(args.scores, {columns});
  Tensor spread = torch::stable::new_empty(args.scores, {columns});
  if (columns > 0) {
    launch("group_proposals: measuring the columns", column_ranges_kernel<T>, blocks, kGroupingThreads, 0,
           stream, grouping, low.mutable_data_ptr<T>(), spread.mutable_data_ptr<T>());
    grouping.low = low.const_data_ptr<T>();
    grouping.spread = spread.const_data_ptr<T>();
  }

  int64_t total = 0;
  Tensor rows = torch::stable::new_empty(args.scores, {cells + 1}, ScalarType::Long);
  if (cells > 0) {
    Tensor counts = torch::stable::new_empty(args.scores, {cells}, ScalarType::Long);
    launch("group_proposals: counting", count_proposals_kernel<T>, blocks, kGroupingThreads, 0, stream,
           grouping, counts.mutable_data_ptr<int64_t>());
    launch("group_proposals: numbering", exclusive_scan_kernel<int64_t>, 1, kScanThreads, 0, stream,
           counts.const_data_ptr<int64_t>(), cells, rows.mutable_data_ptr<int64_t>());
    check_cuda(cudaMemcpyAsync(&total, rows.const_data_ptr<int64_t>() + cells, sizeof(total),
                               cudaMemcpyDeviceToHost, stream),
               "group_proposals: reading the number of proposals");
    check_cuda(cudaStreamSynchronize(stream), "group_proposals: waiting for the number of proposals");
  }

  Tensor segments = torch::stable::new_empty(args.scores, {total, 2}, ScalarType::Long);
  Tensor owner = torch::stable::new_empty(args.scores, {total, 3}, ScalarType::Long);
  Tensor score = torch::stable::new_empty(args.scores, {total});
  if (total > 0) {
    launch("group_proposals: writing", fill_proposals_kernel<T>, blocks, kGroupingThreads, 0, stream,
           grouping, rows.const_data_ptr<int64_t>(), segments.mutable_data_ptr<int64_t>(),
           owner.mutable_data_ptr<int64_t>(), score.mutable_data_ptr<T>());
  }
  return {segments, owner, score};
}

Proposals group_proposals(const Tensor& scores, const Tensor& thresholds,
                          const std::optional<Tensor>& lengths, const std::optional<Tensor>& keep,
                          int64_t min_length, std::string score, bool unique, bool rescale) {
  STD_TORCH_CHECK(on_cuda(scores), "group_proposals: scores is not on the device of the other arguments");
  const DeviceGuard guard(scores);
  check_capability("group_proposals");
  const ProposalsArgs args(scores, thresholds, lengths, keep, min_length, score, unique, rescale);
  return scores.scalar_type() == ScalarType::Float ? group<float>(args) : group<double>(args);
}

STABLE_TORCH_LIBRARY_IMPL(wtal, CUDA, m) { m.impl("group_proposals", TORCH_BOX(&group_proposals)); }

}  // namespace
}  // namespace wtal
