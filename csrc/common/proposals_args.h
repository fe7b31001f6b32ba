// Argument checks that the CPU and CUDA entries of group_proposals share: all checks that memory accesses
// need. The Python function checks more.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <string_view>

#include "common/proposal_rule.h"
#include "common/shape.h"

namespace wtal {

// The arguments, checked, with contiguous side tables. It owns the memory that a Grouping points to.
struct ProposalsArgs {
  using Tensor = torch::stable::Tensor;
  using ScalarType = torch::headeronly::ScalarType;

  Tensor scores, thresholds;
  std::optional<Tensor> lengths, keep;
  int64_t min_length;
  ProposalScore score = ProposalScore::kMax;
  bool unique, rescale;

  ProposalsArgs(const Tensor& scores, const Tensor& thresholds, const std::optional<Tensor>& lengths,
                const std::optional<Tensor>& keep, int64_t min_length, std::string_view score, bool unique,
                bool rescale)
      : scores(scores), thresholds(thresholds), min_length(min_length), unique(unique), rescale(rescale) {
    STD_TORCH_CHECK(scores.dim() == 3, "group_proposals: scores has shape ", shape_of(scores),
                    ", expected [B, T, C]");
    const ScalarType dtype = scores.scalar_type();
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double,
                    "group_proposals: scores has dtype ", torch::headeronly::toString(dtype),
                    ", expected float32 or float64");
    check("thresholds", thresholds, dtype);
    STD_TORCH_CHECK(thresholds.dim() == 1, "group_proposals: thresholds has shape ", shape_of(thresholds),
                    ", expected [K]");
    this->thresholds = torch::stable::contiguous(thresholds);
    if (lengths) {
      check("lengths", *lengths, ScalarType::Long);
      STD_TORCH_CHECK(lengths->dim() == 1 && lengths->size(0) == scores.size(0),
                      "group_proposals: lengths has shape ", shape_of(*lengths),
                      ", expected [B] to go with scores ", shape_of(scores));
      this->lengths = torch::stable::contiguous(*lengths);
    }
    if (keep) {
      check("keep", *keep, ScalarType::Bool);
      STD_TORCH_CHECK(keep->dim() == 2 && keep->size(0) == scores.size(0) && keep->size(1) == scores.size(2),
                      "group_proposals: keep has shape ", shape_of(*keep),
                      ", expected [B, C] to go with scores ", shape_of(scores));
      this->keep = torch::stable::contiguous(*keep);
    }
    STD_TORCH_CHECK(min_length >= 1, "group_proposals: min_length is ", min_length, ", expected at least 1");
    if (score == "mean") {
      this->score = ProposalScore::kMean;
    } else if (score == "oic") {
      this->score = ProposalScore::kOuterInner;
    } else {
      STD_TORCH_CHECK(score == "max", "group_proposals: score is '", score,
                      "', expected 'max', 'mean' or 'oic'");
    }
  }

  template <class T>
  Grouping<T> grouping() const {
    return {scores.const_data_ptr<T>(),
            scores.stride(0),
            scores.stride(1),
            scores.stride(2),
            scores.size(0),
            scores.size(1),
            scores.size(2),
            thresholds.size(0),
            thresholds.const_data_ptr<T>(),
            lengths ? lengths->const_data_ptr<int64_t>() : nullptr,
            keep ? keep->const_data_ptr<bool>() : nullptr,
            min_length,
            score,
            unique,
            rescale};
  }

 private:
  void check(const char* name, const Tensor& tensor, ScalarType dtype) const {
    STD_TORCH_CHECK(tensor.device() == scores.device(), "group_proposals: ", name,
                    " is not on the device of scores");
    STD_TORCH_CHECK(tensor.scalar_type() == dtype, "group_proposals: ", name, " has dtype ",
                    torch::headeronly::toString(tensor.scalar_type()), ", expected ",
                    torch::headeronly::toString(dtype));
  }
};

}  // namespace wtal
