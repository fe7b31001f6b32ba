// Common parts of the CPU and CUDA entries of temporal_attention: argument checks, results, the packed
// layout.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <optional>
#include <string>

#include "common/shape.h"

namespace wtal {

// Padded batches [B, H, T, D] and rows without padding use the same code: rows are a batch [1, H, R, D] whose
// videos begin at `starts`.
struct AttentionSizes {
  int64_t batch, heads, length, dim;  // the sizes of q
  int64_t window;                     // at most `length`; `length` means no window
};

struct Videos {
  std::optional<torch::stable::Tensor> starts;   // [B]; none: video b is element b of a padded batch
  std::optional<torch::stable::Tensor> lengths;  // [B]; none: every video has T rows (padded batches only)
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

inline void check_per_video(const char* name, const torch::stable::Tensor& tensor,
                            const torch::stable::Tensor& q, int64_t videos) {
  check_same_device(name, tensor, q);
  STD_TORCH_CHECK(tensor.scalar_type() == torch::headeronly::ScalarType::Long && tensor.dim() == 1 &&
                      tensor.size(0) == videos,
                  "temporal_attention: ", name, " has shape ", shape_of(tensor), " and dtype ",
                  torch::headeronly::toString(tensor.scalar_type()), ", expected int64 [", videos, "]");
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
  if (lengths) check_per_video("lengths", *lengths, q, q.size(0));
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

// ---- results ----
inline torch::stable::Tensor new_like(const torch::stable::Tensor& tensor) {
  return torch::stable::new_empty(tensor, tensor.sizes());
}

// [B, H, T] for q [B, H, T, D]
inline torch::stable::Tensor new_statistic(const torch::stable::Tensor& q) {
  using torch::headeronly::ScalarType;
  const bool precise = q.scalar_type() == ScalarType::Double;
  return torch::stable::new_empty(q, q.sizes().slice(0, 3), precise ? ScalarType::Double : ScalarType::Float);
}

// ---- the packed projection [B, T, 3, H, D] ----
struct Qkv {
  torch::stable::Tensor q, k, v;  // [B, H, T, D]
};

// [B, T, H, D] -> [B, H, T, D], a view
inline torch::stable::Tensor heads_first(const torch::stable::Tensor& rows) {
  STD_TORCH_CHECK(rows.dim() == 4, "temporal_attention: out or grad_out has shape ", shape_of(rows),
                  ", expected [B, T, H, D]");
  return torch::stable::transpose(rows, 1, 2);
}

inline Qkv unpack(const torch::stable::Tensor& qkv) {
  STD_TORCH_CHECK(qkv.dim() == 5 && qkv.size(2) == 3 && qkv.size(4) >= 1,
                  "temporal_attention: qkv has shape ", shape_of(qkv),
                  ", expected [B, T, 3, H, D] with D >= 1");
  const auto part = [&](int64_t i) { return heads_first(torch::stable::select(qkv, 2, i)); };
  return {part(0), part(1), part(2)};
}

// A new output [B, T, H, D] for qkv [B, T, 3, H, D], not initialised.
inline torch::stable::Tensor new_rows(const torch::stable::Tensor& qkv) {
  return torch::stable::new_empty(qkv, {qkv.size(0), qkv.size(1), qkv.size(3), qkv.size(4)});
}

// ---- rows without padding, qkv [R, 3, H, D] ----
// Views of rows as a batch of one element: qkv [1, R, 3, H, D], out [1, R, H, D], lse [1, H, R].
inline torch::stable::Tensor as_batch(const char* name, const torch::stable::Tensor& rows, int64_t dims,
                                      const char* expected) {
  STD_TORCH_CHECK(rows.dim() == dims, "temporal_attention: ", name, " has shape ", shape_of(rows),
                  ", expected ", expected);
  return torch::stable::unsqueeze(rows, 0);
}

inline torch::stable::Tensor qkv_as_batch(const torch::stable::Tensor& qkv) {
  STD_TORCH_CHECK(qkv.dim() == 4 && qkv.size(1) == 3 && qkv.size(3) >= 1,
                  "temporal_attention: qkv has shape ", shape_of(qkv), ", expected [R, 3, H, D] with D >= 1");
  return torch::stable::unsqueeze(qkv, 0);
}

}  // namespace wtal
