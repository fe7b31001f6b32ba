// The entries of temporal_attention for every device. They check the arguments, allocate the results and
// split the packed layouts. A device provides
//   check(q): raises an error if it has no kernel for such a tensor,
//   attend(sizes, x, videos, scale, out, lse) and
//   attend_backward(sizes, grad_out, grad_lse, x, out, lse, videos, scale, grads),
// where x, out, lse and the gradients are [B, H, T, D] or [B, H, T]. For rows without padding B = 1.
#pragma once
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>

#include "common/attention_args.h"

namespace wtal {

template <class Device>
struct AttentionEntries {
  using Tensor = torch::stable::Tensor;
  using OptionalTensor = std::optional<Tensor>;

  static AttentionSizes check_rows(const Qkv& x, const Tensor& starts, const Tensor& lengths,
                                   std::optional<int64_t> window) {
    STD_TORCH_CHECK(starts.dim() == 1, "temporal_attention: starts has shape ", shape_of(starts),
                    ", expected int64 [B]");
    check_per_video("starts", starts, x.q, starts.size(0));
    check_per_video("lengths", lengths, x.q, starts.size(0));
    return check_attention(x.q, x.k, x.v, std::nullopt, window);
  }

  static std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                            const OptionalTensor& lengths, std::optional<int64_t> window,
                                            double scale) {
    const AttentionSizes sizes = check_attention(q, k, v, lengths, window);
    Device::check(q);
    Tensor out = new_like(q), lse = new_statistic(q);
    Device::attend(sizes, {q, k, v}, {{}, lengths}, scale, out, lse);
    return {out, lse};
  }

  static std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const OptionalTensor& grad_lse,
                                                     const Tensor& q, const Tensor& k, const Tensor& v,
                                                     const Tensor& out, const Tensor& lse,
                                                     const OptionalTensor& lengths,
                                                     std::optional<int64_t> window, double scale) {
    const AttentionSizes sizes = check_attention(q, k, v, lengths, window);
    Device::check(q);
    const Qkv grads{new_like(q), new_like(q), new_like(q)};
    Device::attend_backward(sizes, grad_out, grad_lse, {q, k, v}, out, lse, {{}, lengths}, scale, grads);
    return {grads.q, grads.k, grads.v};
  }

  static std::tuple<Tensor, Tensor> packed(const Tensor& qkv, const OptionalTensor& lengths,
                                           std::optional<int64_t> window, double scale) {
    const Qkv x = unpack(qkv);
    const AttentionSizes sizes = check_attention(x.q, x.k, x.v, lengths, window);
    Device::check(qkv);
    Tensor out = new_rows(qkv), lse = new_statistic(x.q);
    Device::attend(sizes, x, {{}, lengths}, scale, heads_first(out), lse);
    return {out, lse};
  }

  static Tensor packed_backward(const Tensor& grad_out, const OptionalTensor& grad_lse, const Tensor& qkv,
                                const Tensor& out, const Tensor& lse, const OptionalTensor& lengths,
                                std::optional<int64_t> window, double scale) {
    const Qkv x = unpack(qkv);
    const AttentionSizes sizes = check_attention(x.q, x.k, x.v, lengths, window);
    Device::check(qkv);
    const Tensor grad = new_like(qkv);
    Device::attend_backward(sizes, heads_first(grad_out), grad_lse, x, heads_first(out), lse, {{}, lengths},
                            scale, unpack(grad));
    return grad;
  }

  static std::tuple<Tensor, Tensor> rows(const Tensor& qkv, const Tensor& starts, const Tensor& lengths,
                                         std::optional<int64_t> window, double scale) {
    const Qkv x = unpack(qkv_as_batch(qkv));
    const AttentionSizes sizes = check_rows(x, starts, lengths, window);
    Device::check(qkv);
    Tensor out = torch::stable::new_empty(qkv, {qkv.size(0), qkv.size(2), qkv.size(3)});
    Tensor batch_lse = new_statistic(x.q);  // [1, H, R]
    Device::attend(sizes, x, {starts, lengths}, scale, heads_first(torch::stable::unsqueeze(out, 0)),
                   batch_lse);
    return {out, torch::stable::select(batch_lse, 0, 0)};
  }

  static Tensor rows_backward(const Tensor& grad_out, const OptionalTensor& grad_lse, const Tensor& qkv,
                              const Tensor& out, const Tensor& lse, const Tensor& starts,
                              const Tensor& lengths, std::optional<int64_t> window, double scale) {
    const Qkv x = unpack(qkv_as_batch(qkv));
    const AttentionSizes sizes = check_rows(x, starts, lengths, window);
    Device::check(qkv);
    const auto values = [](const char* name, const Tensor& tensor) {
      return heads_first(as_batch(name, tensor, 3, "[R, H, D]"));
    };
    OptionalTensor batch_grad_lse;
    if (grad_lse) batch_grad_lse = as_batch("grad_lse", *grad_lse, 2, "[H, R]");
    const Tensor grad = new_like(qkv);
    Device::attend_backward(sizes, values("grad_out", grad_out), batch_grad_lse, x, values("out", out),
                            as_batch("lse", lse, 2, "[H, R]"), {starts, lengths}, scale,
                            unpack(torch::stable::unsqueeze(grad, 0)));
    return grad;
  }

  template <class Library>
  static void add_to(Library& library) {
    library.impl("temporal_attention", TORCH_BOX(&AttentionEntries::forward));
    library.impl("temporal_attention_backward", TORCH_BOX(&AttentionEntries::backward));
    library.impl("temporal_attention_packed", TORCH_BOX(&AttentionEntries::packed));
    library.impl("temporal_attention_packed_backward", TORCH_BOX(&AttentionEntries::packed_backward));
    library.impl("temporal_attention_rows", TORCH_BOX(&AttentionEntries::rows));
    library.impl("temporal_attention_rows_backward", TORCH_BOX(&AttentionEntries::rows_backward));
  }
};

}  // namespace wtal
