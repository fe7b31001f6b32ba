// temporal_attention and its gradients on the CPU: what tiles there are, and which core does which.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <atomic>
#include <tuple>
#include <vector>

#include "common/attention_args.h"
#include "cpu/attention_tiles.h"

namespace wtal {
namespace {

using attention::Head;
using attention::kTile;
using attention::Slice;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// ---- one wheel, each machine's own vector width
// ----------------------------------------------------------------
template <class T>
struct TileRoutines {
  void (*forward)(const Head<T>&, int64_t first, int64_t total, T* out, T* lse, T* scratch);
  void (*grad_q)(const Head<T>&, int64_t first, int64_t total, T* grad_q, T* scratch);
  void (*grad_kv)(const Head<T>&, int64_t first, int64_t total, T* grad_k, T* grad_v, T* scratch);
};

#define WTAL_TILE_ROUTINES(name, bytes, target)                                                           \
  template <class T>                                                                                      \
  struct name {                                                                                           \
    target static void forward(const Head<T>& head, int64_t first, int64_t total, T* out, T* lse, T* s) { \
      attention::forward_tile<T, bytes>(head, first, total, out, lse, s);                                 \
    }                                                                                                     \
    target static void grad_q(const Head<T>& head, int64_t first, int64_t total, T* grad, T* s) {         \
      attention::grad_q_tile<T, bytes>(head, first, total, grad, s);                                      \
    }                                                                                                     \
    target static void grad_kv(const Head<T>& head, int64_t first, int64_t total, T* grad_k, T* grad_v,   \
                               T* s) {                                                                    \
      attention::grad_kv_tile<T, bytes>(head, first, total, grad_k, grad_v, s);                           \
    }                                                                                                     \
    static constexpr TileRoutines<T> routines{forward, grad_q, grad_kv};                                  \
  };

WTAL_TILE_ROUTINES(Baseline, 16, )
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WTAL_X86_LEVELS
WTAL_TILE_ROUTINES(Avx2, 32, __attribute__((target("arch=x86-64-v3"))))
WTAL_TILE_ROUTINES(Avx512, 64, __attribute__((target("arch=x86-64-v4"))))
#endif

template <class T>
TileRoutines<T> best_routines() {
#ifdef WTAL_X86_LEVELS
  if (__builtin_cpu_supports("x86-64-v4")) return Avx512<T>::routines;
  if (__builtin_cpu_supports("x86-64-v3")) return Avx2<T>::routines;
#endif
  return Baseline<T>::routines;
}

// ---- the work
// ----------------------------------------------------------------------------------------------------
struct alignas(64) CacheLine {
  char bytes[64];
};

// Calls body(item, scratch) for every item. Ragged batches leave the items very unequal, so each thread takes
// the next one when it is done; an item's result does not depend on who computes it.
template <class T, class F>
void for_each_item(int64_t items, int64_t scratch_size, const F& body) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(items, torch::stable::get_num_threads());
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    std::vector<CacheLine> lines((scratch_size * sizeof(T) + 63) / 64);
    T* scratch = reinterpret_cast<T*>(lines.data());
    for (int64_t item = next++; item < items; item = next++) body(item, scratch);
  });
}

template <class T>
struct View {  // [B, H, T, D] or [B, H, T], any strides
  const T* data = nullptr;
  int64_t video = 0, head = 0, row = 0, column = 0;

  View() = default;
  explicit View(const Tensor& tensor)
      : data(static_cast<const T*>(tensor.const_data_ptr())),
        video(tensor.stride(0)),
        head(tensor.stride(1)),
        row(tensor.stride(2)),
        column(tensor.dim() == 4 ? tensor.stride(3) : 0) {}
  Slice<T> at(int64_t b, int64_t h) const { return {data + b * video + h * head, row, column}; }
};

std::vector<int64_t> read_lengths(const OptionalTensor& lengths, const AttentionSizes& sizes) {
  std::vector<int64_t> values(sizes.batch, sizes.length);
  if (!lengths) return values;
  const auto* data = static_cast<const int64_t*>(lengths->const_data_ptr());
  for (int64_t b = 0; b < sizes.batch; ++b) {
    values[b] = data[b * lengths->stride(0)];
    STD_TORCH_CHECK(values[b] >= 0 && values[b] <= sizes.length, "temporal_attention: lengths[", b, "] is ",
                    values[b], ", expected 0 to T = ", sizes.length);
  }
  return values;
}

template <class T>
void forward(const AttentionSizes& sizes, const std::vector<int64_t>& lengths, T scale, const Tensor& q,
             const Tensor& k, const Tensor& v, Tensor& out, Tensor& lse) {
  const View<T> q_view(q), k_view(k), v_view(v);
  T* out_data = static_cast<T*>(out.mutable_data_ptr());
  T* lse_data = static_cast<T*>(lse.mutable_data_ptr());
  const auto routines = best_routines<T>();
  const int64_t total = sizes.length, tiles = (total + kTile - 1) / kTile;
  for_each_item<T>(sizes.batch * sizes.heads * tiles, attention::scratch_size(sizes.dim),
                   [&](int64_t item, T* scratch) {
                     const int64_t head = item / tiles, b = head / sizes.heads, h = head % sizes.heads;
                     const Head<T> job{q_view.at(b, h),
                                       k_view.at(b, h),
                                       v_view.at(b, h),
                                       lengths[b],
                                       sizes.window,
                                       sizes.dim,
                                       scale,
                                       {},
                                       {},
                                       nullptr};
                     routines.forward(job, item % tiles * kTile, total, out_data + head * total * sizes.dim,
                                      lse_data + head * total, scratch);
                   });
}

template <class T>
void backward(const AttentionSizes& sizes, const std::vector<int64_t>& lengths, T scale,
              const Tensor& grad_out, const OptionalTensor& grad_lse, const Tensor& q, const Tensor& k,
              const Tensor& v, const Tensor& out, const Tensor& lse, Tensor& grad_q, Tensor& grad_k,
              Tensor& grad_v) {
  const View<T> q_view(q), k_view(k), v_view(v), grad_view(grad_out), out_view(out), lse_view(lse);
  const View<T> grad_lse_view = grad_lse ? View<T>(*grad_lse) : View<T>();
  T* grad_q_data = static_cast<T*>(grad_q.mutable_data_ptr());
  T* grad_k_data = static_cast<T*>(grad_k.mutable_data_ptr());
  T* grad_v_data = static_cast<T*>(grad_v.mutable_data_ptr());
  const auto routines = best_routines<T>();
  const int64_t total = sizes.length, dim = sizes.dim, tiles = (total + kTile - 1) / kTile;
  const int64_t heads = sizes.batch * sizes.heads;

  std::vector<T> delta(heads * total);  // rowsum(grad_out * out) - grad_lse
  for_each_item<T>(heads, 0, [&](int64_t head, T*) {
    const int64_t b = head / sizes.heads, h = head % sizes.heads;
    const Slice<T> grad = grad_view.at(b, h), value = out_view.at(b, h), grad_of_lse = grad_lse_view.at(b, h);
    for (int64_t t = 0; t < lengths[b]; ++t) {
      T sum = grad_lse ? -grad_of_lse.data[t * grad_of_lse.row] : T(0);
      for (int64_t d = 0; d < dim; ++d) {
        sum += grad.data[t * grad.row + d * grad.column] * value.data[t * value.row + d * value.column];
      }
      delta[head * total + t] = sum;
    }
  });

  // Two passes, each the only writer of what it writes: no atomics, no buffer of T x T, the same bits every
  // time.
  for_each_item<T>(2 * heads * tiles, attention::scratch_size(dim), [&](int64_t item, T* scratch) {
    const bool of_keys = item < heads * tiles;  // the longer ones first
    const int64_t rest = item % (heads * tiles), head = rest / tiles, first = rest % tiles * kTile;
    const int64_t b = head / sizes.heads, h = head % sizes.heads, base = head * total * dim;
    const Head<T> job{q_view.at(b, h),
                      k_view.at(b, h),
                      v_view.at(b, h),
                      lengths[b],
                      sizes.window,
                      dim,
                      scale,
                      grad_view.at(b, h),
                      lse_view.at(b, h),
                      delta.data() + head * total};
    if (of_keys) {
      routines.grad_kv(job, first, total, grad_k_data + base, grad_v_data + base, scratch);
    } else {
      routines.grad_q(job, first, total, grad_q_data + base, scratch);
    }
  });
}

void check_dtype(const Tensor& q) {
  STD_TORCH_CHECK(q.scalar_type() == ScalarType::Float || q.scalar_type() == ScalarType::Double,
                  "temporal_attention: q has dtype ", torch::headeronly::toString(q.scalar_type()),
                  ", expected float32 or float64 on the CPU");
}

Tensor new_like(const Tensor& q) { return torch::stable::new_empty(q, q.sizes()); }

std::tuple<Tensor, Tensor> temporal_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                              const OptionalTensor& lengths, std::optional<int64_t> window,
                                              double scale) {
  const AttentionSizes sizes = check_attention(q, k, v, lengths, window);
  check_dtype(q);
  const std::vector<int64_t> valid = read_lengths(lengths, sizes);
  Tensor out = new_like(q);
  Tensor lse = torch::stable::new_empty(q, {sizes.batch, sizes.heads, sizes.length});
  if (q.scalar_type() == ScalarType::Float) {
    forward<float>(sizes, valid, static_cast<float>(scale), q, k, v, out, lse);
  } else {
    forward<double>(sizes, valid, scale, q, k, v, out, lse);
  }
  return {out, lse};
}

std::tuple<Tensor, Tensor, Tensor> temporal_attention_backward(
    const Tensor& grad_out, const OptionalTensor& grad_lse, const Tensor& q, const Tensor& k, const Tensor& v,
    const Tensor& out, const Tensor& lse, const OptionalTensor& lengths, std::optional<int64_t> window,
    double scale) {
  const AttentionSizes sizes = check_attention(q, k, v, lengths, window);
  check_dtype(q);
  check_attention_backward(grad_out, grad_lse, q, out, lse);
  const std::vector<int64_t> valid = read_lengths(lengths, sizes);
  Tensor grad_q = new_like(q), grad_k = new_like(q), grad_v = new_like(q);
  if (q.scalar_type() == ScalarType::Float) {
    backward<float>(sizes, valid, static_cast<float>(scale), grad_out, grad_lse, q, k, v, out, lse, grad_q,
                    grad_k, grad_v);
  } else {
    backward<double>(sizes, valid, scale, grad_out, grad_lse, q, k, v, out, lse, grad_q, grad_k, grad_v);
  }
  return {grad_q, grad_k, grad_v};
}

}  // namespace
}  // namespace wtal

STABLE_TORCH_LIBRARY_IMPL(wtal, CPU, m) {
  m.impl("temporal_attention", TORCH_BOX(&wtal::temporal_attention));
  m.impl("temporal_attention_backward", TORCH_BOX(&wtal::temporal_attention_backward));
}
