// Argument checks that the CPU and CUDA entries of soft_nms share: all checks that memory accesses need, and
// the messages about values. The Python function checks more.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string_view>

#include "common/nms_values.h"
#include "common/shape.h"
#include "common/soft_nms_decay.h"

namespace wtal {

// The arguments, checked and contiguous.
struct NmsArgs {
  using Tensor = torch::stable::Tensor;
  using ScalarType = torch::headeronly::ScalarType;

  Tensor segments, scores, offsets;  // [N, 2], [N], [G + 1]
  int64_t count, groups;             // N, G
  double sigma, iou_threshold, min_score;
  SuppressionMethod method = SuppressionMethod::kGaussian;
  int64_t max_per_group;

  NmsArgs(const Tensor& segments, const Tensor& scores, const Tensor& offsets, double sigma,
          double iou_threshold, double min_score, std::string_view method,
          const std::optional<int64_t>& max_per_group)
      : sigma(sigma),
        iou_threshold(iou_threshold),
        min_score(min_score),
        max_per_group(max_per_group.value_or(std::numeric_limits<int64_t>::max())) {
    const ScalarType dtype = scores.scalar_type();
    STD_TORCH_CHECK(scores.dim() == 1, "soft_nms: scores has shape ", shape_of(scores), ", expected [N]");
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, "soft_nms: scores has dtype ",
                    torch::headeronly::toString(dtype), ", expected float32 or float64");
    STD_TORCH_CHECK(segments.dim() == 2 && segments.size(0) == scores.size(0) && segments.size(1) == 2,
                    "soft_nms: segments has shape ", shape_of(segments),
                    ", expected [N, 2] to go with scores ", shape_of(scores));
    STD_TORCH_CHECK(segments.scalar_type() == dtype, "soft_nms: segments has dtype ",
                    torch::headeronly::toString(segments.scalar_type()), ", expected the dtype of scores, ",
                    torch::headeronly::toString(dtype));
    STD_TORCH_CHECK(offsets.dim() == 1 && offsets.size(0) >= 1 && offsets.scalar_type() == ScalarType::Long,
                    "soft_nms: offsets has shape ", shape_of(offsets), " and dtype ",
                    torch::headeronly::toString(offsets.scalar_type()), ", expected int64 [G + 1]");
    STD_TORCH_CHECK(segments.device() == scores.device(),
                    "soft_nms: segments is not on the device of scores");
    STD_TORCH_CHECK(offsets.device() == scores.device(), "soft_nms: offsets is not on the device of scores");
    // Checked in the precision of the scores: if sigma became 0 there, the op would divide 0 by 0.
    const bool single = dtype == ScalarType::Float;
    STD_TORCH_CHECK((single ? static_cast<float>(sigma) : sigma) > 0, "soft_nms: sigma is ", sigma,
                    ", expected a number > 0");
    STD_TORCH_CHECK(min_score >= 0, "soft_nms: min_score is ", min_score, ", expected a number >= 0");
    STD_TORCH_CHECK(iou_threshold >= 0, "soft_nms: iou_threshold is ", iou_threshold,
                    ", expected a number >= 0");
    STD_TORCH_CHECK(this->max_per_group >= 0, "soft_nms: max_per_group is ", this->max_per_group,
                    ", expected at least 0, or None");
    if (method == "hard") {
      this->method = SuppressionMethod::kHard;
    } else if (method == "linear") {
      this->method = SuppressionMethod::kLinear;
    } else {
      STD_TORCH_CHECK(method == "gaussian", "soft_nms: method is '", method,
                      "', expected 'hard', 'linear' or 'gaussian'");
    }
    this->segments = torch::stable::contiguous(segments);
    this->scores = torch::stable::contiguous(scores);
    this->offsets = torch::stable::contiguous(offsets);
    count = scores.size(0);
    groups = offsets.size(0) - 1;
  }

  template <class T>
  Suppression<T> suppression() const {
    return {method, static_cast<T>(sigma), static_cast<T>(iou_threshold), static_cast<T>(min_score)};
  }
};

// Position of the first entry that breaks a rule, or kNoFault.
struct NmsFaults {
  int64_t offsets, segments, scores;

  void check(int64_t count) const {
    STD_TORCH_CHECK(offsets == kNoFault, "soft_nms: offsets[", offsets,
                    "] is out of order, expected offsets that start at 0, never fall and end at N = ", count);
    STD_TORCH_CHECK(segments == kNoFault, "soft_nms: segments[", segments,
                    "] is no segment, expected start <= end, both and their difference finite");
    STD_TORCH_CHECK(scores == kNoFault, "soft_nms: scores[", scores, "] is not finite");
  }
};

}  // namespace wtal
