// temporal_attention and its gradients on CUDA: checks, launch sizes, one instantiation a dtype and head
// size.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <tuple>

#include "common/attention_args.h"
#include "cuda/stream.h"
#include "cuda/temporal_attention.cuh"

namespace wtal {
namespace {

using attention::kWarps;
using attention::Output;
using attention::Problem;
using attention::View;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kMaxBlocks = 1 << 20;  // of 2^31 - 1; a warp takes further rows in turn

template <class T>
View<T> view(const Tensor& tensor) {
  return {static_cast<const T*>(tensor.const_data_ptr()), tensor.stride(0), tensor.stride(1),
          tensor.stride(2), tensor.dim() == 4 ? tensor.stride(3) : 0};
}

template <class T>
Output<T> output(Tensor& tensor) {
  return {static_cast<T*>(tensor.mutable_data_ptr()), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

void check_on_cuda(const Tensor& q) {
  STD_TORCH_CHECK(on_cuda(q), "temporal_attention: q is on ", device_of(q),
                  " and another argument on CUDA, expected one device");
}

Problem make_problem(const AttentionSizes& sizes, const OptionalTensor& lengths, double scale) {
  STD_TORCH_CHECK(sizes.dim <= 128, "temporal_attention: q has D = ", sizes.dim,
                  ", expected D <= 128 on CUDA");
  return {sizes.batch,
          sizes.heads,
          sizes.length,
          sizes.window,
          static_cast<int>(sizes.dim),
          static_cast<float>(scale),
          lengths ? static_cast<const int64_t*>(lengths->const_data_ptr()) : nullptr,
          lengths ? lengths->stride(0) : 0};
}

// Calls launch<T, D>() with the tensors' dtype and the smallest head size that holds dim.
template <class F>
void dispatch(const Tensor& q, const F& launch) {
  auto with_dtype = [&]<class T>() {
    const int64_t dim = q.size(3);
    if (dim <= 32) {
      launch.template operator()<T, 32>();
    } else if (dim <= 64) {
      launch.template operator()<T, 64>();
    } else {
      launch.template operator()<T, 128>();
    }
  };
  switch (q.scalar_type()) {
    case ScalarType::Float:
      return with_dtype.template operator()<float>();
    case ScalarType::Half:
      return with_dtype.template operator()<torch::headeronly::Half>();
    case ScalarType::BFloat16:
      return with_dtype.template operator()<torch::headeronly::BFloat16>();
    default:
      STD_TORCH_CHECK(false, "temporal_attention: q has dtype ", torch::headeronly::toString(q.scalar_type()),
                      ", expected float32, float16 or bfloat16 on CUDA");
  }
}

int64_t blocks_for(int64_t rows) { return std::min((rows + kWarps - 1) / kWarps, kMaxBlocks); }

void attend(const AttentionSizes& sizes, const Qkv& x, const OptionalTensor& lengths, double scale,
            Tensor out, Tensor& lse) {
  const DeviceGuard guard(x.q);
  const Problem problem = make_problem(sizes, lengths, scale);
  dispatch(x.q, [&]<class T, int D>() {
    const int64_t blocks = blocks_for(lse.numel());
    if (blocks == 0) return;
    launch("temporal_attention", attention::forward_kernel<T, D>, blocks, dim3(32, kWarps), 0,
           current_stream(x.q), problem, view<T>(x.q), view<T>(x.k), view<T>(x.v), output<T>(out),
           static_cast<float*>(lse.mutable_data_ptr()));
  });
}

void attend_backward(const AttentionSizes& sizes, const Tensor& grad_out, const OptionalTensor& grad_lse,
                     const Qkv& x, const Tensor& out, const Tensor& lse, const OptionalTensor& lengths,
                     double scale, Qkv grads) {
  check_attention_backward(grad_out, grad_lse, x.q, out, lse);
  const DeviceGuard guard(x.q);
  const Problem problem = make_problem(sizes, lengths, scale);
  Tensor delta = new_statistic(x.q);
  dispatch(x.q, [&]<class T, int D>() {
    const int64_t blocks = blocks_for(delta.numel());
    if (blocks == 0) return;
    const dim3 threads(32, kWarps);
    const cudaStream_t stream = current_stream(x.q);
    const View<T> q = view<T>(x.q), k = view<T>(x.k), v = view<T>(x.v), grad = view<T>(grad_out);
    const View<float> lse_view = view<float>(lse);
    const View<float> grad_lse_view = grad_lse ? view<float>(*grad_lse) : View<float>{};
    float* delta_data = static_cast<float*>(delta.mutable_data_ptr());
    launch("temporal_attention_backward: delta", attention::delta_kernel<T>, blocks, threads, 0, stream,
           problem, grad, view<T>(out), grad_lse_view, delta_data);
    launch("temporal_attention_backward: grad_q", attention::grad_q_kernel<T, D>, blocks, threads, 0, stream,
           problem, grad, q, k, v, lse_view, delta_data, output<T>(grads.q));
    launch("temporal_attention_backward: grad_kv", attention::grad_kv_kernel<T, D>, blocks, threads, 0,
           stream, problem, grad, q, k, v, lse_view, delta_data, output<T>(grads.k), output<T>(grads.v));
  });
}

std::tuple<Tensor, Tensor> temporal_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                              const OptionalTensor& lengths, std::optional<int64_t> window,
                                              double scale) {
  const AttentionSizes sizes = check_attention(q, k, v, lengths, window);
  check_on_cuda(q);
  Tensor out = new_like(q), lse = new_statistic(q);
  attend(sizes, {q, k, v}, lengths, scale, out, lse);
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor> temporal_attention_backward(
    const Tensor& grad_out, const OptionalTensor& grad_lse, const Tensor& q, const Tensor& k, const Tensor& v,
    const Tensor& out, const Tensor& lse, const OptionalTensor& lengths, std::optional<int64_t> window,
    double scale) {
  const AttentionSizes sizes = check_attention(q, k, v, lengths, window);
  check_on_cuda(q);
  const Qkv grads{new_like(q), new_like(q), new_like(q)};
  attend_backward(sizes, grad_out, grad_lse, {q, k, v}, out, lse, lengths, scale, grads);
  return {grads.q, grads.k, grads.v};
}

std::tuple<Tensor, Tensor> temporal_attention_packed(const Tensor& qkv, const OptionalTensor& lengths,
                                                     std::optional<int64_t> window, double scale) {
  const Qkv x = unpack(qkv);
  const AttentionSizes sizes = check_attention(x.q, x.k, x.v, lengths, window);
  check_on_cuda(qkv);
  Tensor out = new_rows(qkv), lse = new_statistic(x.q);
  attend(sizes, x, lengths, scale, heads_first(out), lse);
  return {out, lse};
}

Tensor temporal_attention_packed_backward(const Tensor& grad_out, const OptionalTensor& grad_lse,
                                          const Tensor& qkv, const Tensor& out, const Tensor& lse,
                                          const OptionalTensor& lengths, std::optional<int64_t> window,
                                          double scale) {
  const Qkv x = unpack(qkv);
  const AttentionSizes sizes = check_attention(x.q, x.k, x.v, lengths, window);
  check_on_cuda(qkv);
  const Tensor grad = new_like(qkv);
  attend_backward(sizes, heads_first(grad_out), grad_lse, x, heads_first(out), lse, lengths, scale,
                  unpack(grad));
  return grad;
}

}  // namespace
}  // namespace wtal

STABLE_TORCH_LIBRARY_IMPL(wtal, CUDA, m) {
  m.impl("temporal_attention", TORCH_BOX(&wtal::temporal_attention));
  m.impl("temporal_attention_backward", TORCH_BOX(&wtal::temporal_attention_backward));
  m.impl("temporal_attention_packed", TORCH_BOX(&wtal::temporal_attention_packed));
  m.impl("temporal_attention_packed_backward", TORCH_BOX(&wtal::temporal_attention_packed_backward));
}
