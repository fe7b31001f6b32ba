// Argument checks of temporal_attention that its CPU and CUDA entries share.
#pragma once
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <optional>
#include <string>

#include "common/shape.h"

namespace wtal {

struct AttentionSizes {
  int64_t batch, heads, length, dim;
  int64_t window;  // at most `length`, which stands for "no window" as well
};

inline std::string device_of(const torch::stable::Tensor& tensor) {
  if (tensor.is_cuda()) return "cuda:" + std::to_string(tensor.get_device_index());
  return tensor.is_cpu() ? "cpu" : "a device that is neither CPU nor CUDA";
}

inline void check_same_device(const char* name, const torch::stable::Tensor& tensor,
                              const torch::stable::Tensor& q) {
  STD_TORCH_CHECK(tensor.device() == q.device(), "temporal_attention: ", name, " is on ", device_of(tensor),
                  ", expected q's device ", device_of(q));
}

inline void check_like(const char* name, const torch::stable::Tensor& tensor,
                       const torch::stable::Tensor& q) {
  check_same_device(name, tensor, q);
  STD_TORCH_CHECK(tensor.scalar_type() == q.scalar_type(), "temporal_attention: ", name, " has dtype ",
                  torch::headeronly::toString(tensor.scalar_type()), ", expected q's dtype ",
                  torch::headeronly::toString(q.scalar_type()));
  STD_TORCH_CHECK(tensor.dim() == q.dim() && std::ranges::equal(tensor.sizes(), q.sizes()),
                  "temporal_attention: ", name, " has shape ", shape_of(tensor), ", expected q's shape ",
                  shape_of(q));
}

inline void check_statistic(const char* name, const torch::stable::Tensor& tensor,
                            const torch::stable::Tensor& q) {
  using torch::headeronly::ScalarType;
  check_same_device(name, tensor, q);
  const ScalarType expected = q.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(tensor.scalar_type() == expected, "temporal_attention: ", name, " has dtype ",
                  torch::headeronly::toString(tensor.scalar_type()), ", expected ",
                  torch::headeronly::toString(expected));
  STD_TORCH_CHECK(tensor.dim() == 3 && std::ranges::equal(tensor.sizes(), q.sizes().slice(0, 3)),
                  "temporal_attention: ", name, " has shape ", shape_of(tensor), ", expected [B, H, T] of q ",
                  shape_of(q));
}

inline AttentionSizes check_attention(const torch::stable::Tensor& q, const torch::stable::Tensor& k,
                                      const torch::stable::Tensor& v,
                                      const std::optional<torch::stable::Tensor>& lengths,
                                      const std::optional<int64_t>& window) {
  STD_TORCH_CHECK(q.dim() == 4 && q.size(3) >= 1, "temporal_attention: q has shape ", shape_of(q),
                  ", expected [B, H, T, D] with D >= 1");
  check_like("k", k, q);
  check_like("v", v, q);
  for (const auto& [name, tensor] : {std::pair{"q", &q}, {"k", &k}, {"v", &v}}) {
    STD_TORCH_CHECK(tensor->size(3) == 1 || tensor->stride(3) == 1, "temporal_attention: ", name,
                    " has stride ", tensor->stride(3),
                    " in its last dimension, expected 1 (call .contiguous())");
  }
  if (lengths) {
    check_same_device("lengths", *lengths, q);
    STD_TORCH_CHECK(lengths->scalar_type() == torch::headeronly::ScalarType::Long && lengths->dim() == 1 &&
                        lengths->size(0) == q.size(0),
                    "temporal_attention: lengths has shape ", shape_of(*lengths), " and dtype ",
                    torch::headeronly::toString(lengths->scalar_type()), ", expected int64 [", q.size(0),
                    "]");
  }
  STD_TORCH_CHECK(!window || *window >= 0, "temporal_attention: window is ", window.value_or(0),
                  ", expected a number of snippets >= 0, or None");
  const int64_t length = q.size(2);
  return {q.size(0), q.size(1), length, q.size(3), std::min(window.value_or(length), length)};
}

inline void check_attention_backward(const torch::stable::Tensor& grad_out,
                                     const std::optional<torch::stable::Tensor>& grad_lse,
                                     const torch::stable::Tensor& q, const torch::stable::Tensor& out,
                                     const torch::stable::Tensor& lse) {
  check_like("grad_out", grad_out, q);
  check_like("out", out, q);
  check_statistic("lse", lse, q);
  if (grad_lse) check_statistic("grad_lse", *grad_lse, q);
}

}  // namespace wtal
