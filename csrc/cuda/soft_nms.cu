// soft_nms on CUDA: check the values, suppress, number the rows, one wait for their number and the check,
// compact.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "common/nms_args.h"
#include "cuda/capability.h"
#include "cuda/scan.cuh"
#include "cuda/soft_nms.cuh"
#include "cuda/soft_nms_tiles.cuh"
#include "cuda/stream.h"

namespace wtal {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Kept = std::tuple<Tensor, Tensor, Tensor>;

static_assert(sizeof(NmsFaults) == 3 * sizeof(long long));

template <class T>
Kept suppress(const NmsArgs& args) {
  const cudaStream_t stream = current_stream(args.scores);
  const NmsInput<T> input{args.segments.const_data_ptr<T>(), args.scores.const_data_ptr<T>(),
                          args.offsets.const_data_ptr<int64_t>(), args.groups};
  const NmsSettings<T> settings{args.suppression<T>(), args.max_per_group};
  const unsigned group_blocks = blocks_for(args.groups, 1);

  Tensor faults_tensor = torch::stable::new_empty(args.offsets, {3});
  auto* const faults = reinterpret_cast<long long*>(faults_tensor.mutable_data_ptr<int64_t>());
  check_cuda(cudaMemsetAsync(faults, kNoFaultByte, sizeof(NmsFaults), stream), "soft_nms: clearing");
  launch("soft_nms: checking the values", check_values_kernel<T>,
         blocks_for(args.count + args.groups + 1, kNmsThreads), kNmsThreads, 0, stream, input, args.count,
         faults);

  Tensor kept_rows = torch::stable::new_empty(args.offsets, {args.count});
  Tensor kept_scores = torch::stable::new_empty(args.scores, {args.count});
  Tensor counts = torch::stable::new_empty(args.offsets, {args.groups});
  static_assert(sizeof(OrderedRow<T>) == 4 * sizeof(T));
  const int64_t scratch = args.count > kMediumGroup ? 4 * args.count : 0;
  Tensor ordered = torch::stable::new_empty(args.scores, {scratch});
  auto* const ordered_rows = reinterpret_cast<OrderedRow<T>*>(ordered.mutable_data_ptr<T>());
  const NmsKept<T> kept{kept_rows.mutable_data_ptr<int64_t>(), kept_scores.mutable_data_ptr<T>(),
                        counts.mutable_data_ptr<int64_t>()};
  if (args.groups > 0) {
    launch("soft_nms: suppressing in small groups", suppress_small_kernel<T>,
           blocks_for(args.groups, kSmallWarps), kSmallThreads, 0, stream, input, settings, faults, kept);
    if (args.count > kSmallGroup) {
      launch("soft_nms: suppressing in medium groups", suppress_medium_kernel<T>, group_blocks, kNmsThreads,
             0, stream, input, settings, faults, kept);
    }
    if (args.count > kMediumGroup) {
      launch("soft_nms: suppressing in large groups", suppress_large_kernel<T>, group_blocks, kNmsThreads, 0,
             stream, input, settings, faults, kMediumGroup, ordered_rows, kept);
    }
  }
  Tensor rows = torch::stable::new_empty(args.offsets, {args.groups + 1});
  launch("soft_nms: numbering", exclusive_scan_kernel<int64_t>, 1, kScanThreads, 0, stream,
         counts.const_data_ptr<int64_t>(), args.groups, rows.mutable_data_ptr<int64_t>());

  NmsFaults found{};
  int64_t total = 0;
  check_cuda(cudaMemcpyAsync(&found, faults, sizeof(found), cudaMemcpyDeviceToHost, stream),
             "soft_nms: reading the check");
  check_cuda(cudaMemcpyAsync(&total, rows.const_data_ptr<int64_t>() + args.groups, sizeof(total),
                             cudaMemcpyDeviceToHost, stream),
             "soft_nms: reading the number kept");
  check_cuda(cudaStreamSynchronize(stream), "soft_nms: waiting for the number kept");
  found.check(args.count);

  Tensor keep_out = torch::stable::new_empty(args.offsets, {total});
  Tensor scores_out = torch::stable::new_empty(args.scores, {total});
  if (total > 0) {
    launch("soft_nms: compacting", compact_kernel<T>, group_blocks, kNmsThreads, 0, stream, input, kept,
           rows.const_data_ptr<int64_t>(), keep_out.mutable_data_ptr<int64_t>(),
           scores_out.mutable_data_ptr<T>());
  }
  return {keep_out, scores_out, rows};
}

Kept soft_nms(const Tensor& segments, const Tensor& scores, const Tensor& offsets, double sigma,
              double iou_threshold, double min_score, std::string method,
              std::optional<int64_t> max_per_group) {
  STD_TORCH_CHECK(on_cuda(scores), "soft_nms: scores is not on the device of the other arguments");
  const DeviceGuard guard(scores);
  check_capability("soft_nms");
  const NmsArgs args(segments, scores, offsets, sigma, iou_threshold, min_score, method, max_per_group);
  STD_TORCH_CHECK(args.count < INT32_MAX, "soft_nms: segments has N = ", args.count,
                  ", expected less than 2^31 on CUDA");
  return scores.scalar_type() == ScalarType::Float ? suppress<float>(args) : suppress<double>(args);
}

STABLE_TORCH_LIBRARY_IMPL(wtal, CUDA, m) { m.impl("soft_nms", TORCH_BOX(&soft_nms)); }

}  // namespace
}  // namespace wtal
