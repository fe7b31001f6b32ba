// temporal_attention and its gradients on CUDA: checks, launch sizes, and one instantiation for each dtype
// and head size.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstdint>
#include <tuple>

#include "common/attention_entries.h"
#include "cuda/attention_delta.cuh"
#include "cuda/capability.h"
#include "cuda/launch.cuh"
#include "cuda/stream.h"
#include "cuda/temporal_attention.cuh"

namespace wtal {
namespace {

using attention::Output;
using attention::Problem;
using attention::View;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

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

Problem make_problem(const AttentionSizes& sizes, const Videos& videos, double scale) {
  STD_TORCH_CHECK(sizes.dim <= 128, "temporal_attention: q has D = ", sizes.dim,
                  ", expected D <= 128 on CUDA");
  STD_TORCH_CHECK(sizes.length < attention::kMostRows, "temporal_attention: q has T (or R) = ", sizes.length,
                  ", expected less than 2^29 on CUDA");
  const auto data = [](const OptionalTensor& tensor) {
    return tensor ? static_cast<const int64_t*>(tensor->const_data_ptr()) : nullptr;
  };
  const auto stride = [](const OptionalTensor& tensor) { return tensor ? tensor->stride(0) : 0; };
  return {videos.starts ? videos.starts->size(0) : sizes.batch,
          sizes.heads,
          sizes.length,
          sizes.window,
          static_cast<int>(sizes.dim),
          static_cast<float>(scale),
          videos.starts.has_value(),
          data(videos.starts),
          data(videos.lengths),
          stride(videos.starts),
          stride(videos.lengths)};
}

// Calls launch<T, D>() with the dtype of the tensors and the smallest D that is not below dim.
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
      return with_dtype.template operator()<__half>();
    case ScalarType::BFloat16:
      return with_dtype.template operator()<__nv_bfloat16>();
    default:
      STD_TORCH_CHECK(false, "temporal_attention: q has dtype ", torch::headeronly::toString(q.scalar_type()),
                      ", expected float32, float16 or bfloat16 on CUDA");
  }
}

// The grid of all kernels: one block for every 64 rows of a head.
unsigned tile_blocks(const Problem& p) {
  const int64_t blocks = p.elements() * p.heads * attention::blocks_of_head(p);
  STD_TORCH_CHECK(blocks <= INT32_MAX, "temporal_attention: B * H * T / 64 (H * (R / 64 + B + 1)) is ",
                  blocks, ", expected less than 2^31 on CUDA");
  return static_cast<unsigned>(blocks);
}

// Whether 16-byte copies can read every row of a tensor of T. Otherwise scalar loads are used.
template <class T>
bool in_vectors(const Tensor& tensor) {
  constexpr int64_t kNumbers = 16 / sizeof(T);
  bool aligned = reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0 &&
                 tensor.size(3) % kNumbers == 0 && tensor.stride(3) == 1;
  for (int64_t dim = 0; dim < 3; ++dim) aligned = aligned && tensor.stride(dim) % kNumbers == 0;
  return aligned;
}

void attend(const AttentionSizes& sizes, const Qkv& x, const Videos& videos, double scale, Tensor out,
            Tensor& lse) {
  if (lse.numel() == 0) return;
  const DeviceGuard guard(x.q);
  check_capability("temporal_attention");
  const Problem problem = make_problem(sizes, videos, scale);
  dispatch(x.q, [&]<class T, int D>() {
    const bool vectors = in_vectors<T>(x.q) && in_vectors<T>(x.k) && in_vectors<T>(x.v);
    const attention::Inputs<T> inputs{view<T>(x.q), view<T>(x.k), view<T>(x.v), vectors};
    launch("temporal_attention", attention::forward_kernel<T, D>, tile_blocks(problem),
           attention::kBlockThreads, attention::forward_shared_bytes<T, D>(), current_stream(x.q), problem,
           inputs, output<T>(out), static_cast<float*>(lse.mutable_data_ptr()));
  });
}

void attend_backward(const AttentionSizes& sizes, const Tensor& grad_out, const OptionalTensor& grad_lse,
                     const Qkv& x, const Tensor& out, const Tensor& lse, const Videos& videos, double scale,
                     Qkv grads) {
  check_attention_backward(grad_out, grad_lse, x.q, out, lse);
  if (lse.numel() == 0) return;
  const DeviceGuard guard(x.q);
  check_capability("temporal_attention");
  const Problem problem = make_problem(sizes, videos, scale);
  // No search for the video of a row is needed here, because the sums of rows in no video are not used.
  const Problem all = videos.starts ? make_problem(sizes, {}, scale) : problem;
  Tensor delta = new_statistic(x.q);
  dispatch(x.q, [&]<class T, int D>() {
    const cudaStream_t stream = current_stream(x.q);
    const View<T> grad = view<T>(grad_out);
    const View<float> grad_lse_view = grad_lse ? view<float>(*grad_lse) : View<float>{};
    float* delta_data = static_cast<float*>(delta.mutable_data_ptr());
    launch("temporal_attention_backward: delta", attention::delta_kernel<T, D>, tile_blocks(all),
           attention::kBlockThreads, 0, stream, all, grad, view<T>(out), grad_lse_view,
           in_vectors<T>(grad_out) && in_vectors<T>(out), delta_data);
    const bool vectors =
        in_vectors<T>(x.q) && in_vectors<T>(x.k) && in_vectors<T>(x.v) && in_vectors<T>(grad_out);
    const attention::GradientInputs<T> inputs{view<T>(x.q),     view<T>(x.k), view<T>(x.v), grad,
                                              view<float>(lse), delta_data,   vectors};
    launch("temporal_attention_backward: grad_q", attention::gradient_kernel<T, D, false>,
           tile_blocks(problem), attention::kBlockThreads, attention::backward_shared_bytes<T, D, false>(),
           stream, problem, inputs, output<T>(grads.q), Output<T>{});
    launch("temporal_attention_backward: grad_kv", attention::gradient_kernel<T, D, true>,
           tile_blocks(problem), attention::kBlockThreads, attention::backward_shared_bytes<T, D, true>(),
           stream, problem, inputs, output<T>(grads.k), output<T>(grads.v));
  });
}

struct Device {
  static constexpr auto check = check_on_cuda;
  static constexpr auto attend = wtal::attend;
  static constexpr auto attend_backward = wtal::attend_backward;
};

}  // namespace
}  // namespace wtal

STABLE_TORCH_LIBRARY_IMPL(wtal, CUDA, m) { wtal::AttentionEntries<wtal::Device>::add_to(m); }
