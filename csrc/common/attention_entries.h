// The four entries of temporal_attention, alike on every device: arguments checked, results made, the packed
// layout taken apart. A device brings
//   check(q): an error where it has no kernel for such a tensor,
//   attend(sizes, x, lengths, scale, out, lse) and
//   attend_backward(sizes, grad_out, grad_lse, x, out, lse, lengths, scale, grads).
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

  static std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                            const OptionalTensor& lengths, std::optional<int64_t> window,
                                            double scale) {
    const AttentionSizes sizes = check_attention(q, k, v, lengths, window);
    Device::check(q);
    Tensor out = new_like(q), lse = new_statistic(q);
    Device::attend(sizes, {q, k, v}, lengths, scale, out, lse);
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
    Device::attend_backward(sizes, grad_out, grad_lse, {q, k, v}, out, lse, lengths, scale, grads);
    return {grads.q, grads.k, grads.v};
  }

  static std::tuple<Tensor, Tensor> packed(const Tensor& qkv, const OptionalTensor& lengths,
                                           std::optional<int64_t> window, double scale) {
    const Qkv x = unpack(qkv);
    const AttentionSizes sizes = check_attention(x.q, x.k, x.v, lengths, window);
    Device::check(qkv);
    Tensor out = new_rows(qkv), lse = new_statistic(x.q);
    Device::attend(sizes, x, lengths, scale, heads_first(out), lse);
    return {out, lse};
  }

  static Tensor packed_backward(const Tensor& grad_out, const OptionalTensor& grad_lse, const Tensor& qkv,
                                const Tensor& out, const Tensor& lse, const OptionalTensor& lengths,
                                std::optional<int64_t> window, double scale) {
    const Qkv x = unpack(qkv);
    const AttentionSizes sizes = check_attention(x.q, x.k, x.v, lengths, window);
    Device::check(qkv);
    const Tensor grad = new_like(qkv);
    Device::attend_backward(sizes, heads_first(grad_out), grad_lse, x, heads_first(out), lse, lengths, scale,
                            unpack(grad));
    return grad;
  }

  template <class Library>
  static void add_to(Library& library) {
    library.impl("temporal_attention", TORCH_BOX(&AttentionEntries::forward));
    library.impl("temporal_attention_backward", TORCH_BOX(&AttentionEntries::backward));
    library.impl("temporal_attention_packed", TORCH_BOX(&AttentionEntries::packed));
    library.impl("temporal_attention_packed_backward", TORCH_BOX(&AttentionEntries::packed_backward));
  }
};

}  // namespace wtal
