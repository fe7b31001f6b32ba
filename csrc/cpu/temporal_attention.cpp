// temporal_attention and its gradients on the CPU: divides the work and distributes it to the threads.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <atomic>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/attention_entries.h"
#include "cpu/attention_tiles.h"
#include "cpu/vector_level.h"

namespace wtal {
namespace {

using attention::Head;
using attention::HeadGradients;
using attention::kTile;
using attention::Output;
using attention::Slice;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// ---- the vector width, selected at run time ----
template <class T>
struct Routines {
  void (*forward)(const Head<T>&, int64_t first, int64_t lanes, const Output<T>& out, T* lse, T* scratch);
  void (*backward)(const Head<T>&, const HeadGradients<T>&, int64_t lanes, T* scratch);
};

#define WTAL_ROUTINES(name, bytes, target)                                                              \
  template <class T>                                                                                    \
  struct name {                                                                                         \
    target static void forward(const Head<T>& head, int64_t first, int64_t lanes, const Output<T>& out, \
                               T* lse, T* scratch) {                                                    \
      attention::forward_tile<T, bytes>(head, first, lanes, out, lse, scratch);                         \
    }                                                                                                   \
    target static void backward(const Head<T>& head, const HeadGradients<T>& grads, int64_t lanes,      \
                                T* scratch) {                                                           \
      attention::backward_head<T, bytes>(head, grads, lanes, scratch);                                  \
    }                                                                                                   \
    static constexpr Routines<T> routines{forward, backward};                                           \
  };

WTAL_ROUTINES(Baseline, 16, )
#ifdef WTAL_X86_LEVELS
WTAL_ROUTINES(Avx2, 32, __attribute__((target("arch=x86-64-v3"))))
WTAL_ROUTINES(Avx512, 64, __attribute__((target("arch=x86-64-v4"))))
#endif

template <class T>
Routines<T> best_routines() {
#ifdef WTAL_X86_LEVELS
  if (vector_level() == VectorLevel::kAvx512) return Avx512<T>::routines;
  if (vector_level() == VectorLevel::kAvx2) return Avx2<T>::routines;
#endif
  return Baseline<T>::routines;
}

// ---- the work ----
struct alignas(64) CacheLine {
  char bytes[64];
};

// Calls body(item, scratch) for every item. Items differ a lot in size if videos differ in length, so a
// thread takes a new item whenever it has finished one. The result of an item does not depend on the thread.
template <class T, class F>
void for_each_item(int64_t items, int64_t scratch_size, const F& body) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(items, torch::stable::get_num_threads());
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    const auto lines = std::make_unique_for_overwrite<CacheLine[]>((scratch_size * sizeof(T) + 63) / 64);
    T* scratch = reinterpret_cast<T*>(lines.get());
    for (int64_t item = next++; item < items; item = next++) body(item, scratch);
  });
}

// A video in the batch [B, H, T, D]: `total` rows of element `batch`, from row `start` on. The first `length`
// rows are the video. The others, up to the next video, belong to no video and are only cleared.
struct Video {
  int64_t batch, start, total, length;
};

template <class T>
struct View {  // [B, H, T, D] or [B, H, T], with any strides
  T* data = nullptr;
  int64_t video = 0, head = 0, row = 0, column = 0;

  T* begin(const Video& v, int64_t h) const { return data + v.batch * video + h * head + v.start * row; }
  Slice<std::remove_const_t<T>> at(const Video& v, int64_t h) const { return {begin(v, h), row, column}; }
  Output<T> output(const Video& v, int64_t h) const { return {begin(v, h), row}; }
};

template <class T>
View<const T> read(const Tensor& tensor) {
  return {static_cast<const T*>(tensor.const_data_ptr()), tensor.stride(0), tensor.stride(1),
          tensor.stride(2), tensor.dim() == 4 ? tensor.stride(3) : 0};
}
template <class T>
View<T> write(Tensor& tensor) {
  return {static_cast<T*>(tensor.mutable_data_ptr()), tensor.stride(0), tensor.stride(1), tensor.stride(2),
          1};
}

std::vector<int64_t> read_integers(const Tensor& tensor) {
  const auto* data = static_cast<const int64_t*>(tensor.const_data_ptr());
  std::vector<int64_t> values(tensor.size(0));
  for (size_t i = 0; i < values.size(); ++i) values[i] = data[i * tensor.stride(0)];
  return values;
}

// The videos of rows without padding. A piece of length 0 comes before the first video, so that every row
// belongs to a piece.
std::vector<Video> read_rows(const Tensor& starts, const Tensor& lengths, int64_t rows) {
  const std::vector<int64_t> begins = read_integers(starts), counts = read_integers(lengths);
  std::vector<Video> videos{{0, 0, rows, 0}};
  int64_t end = 0;
  for (size_t b = 0; b < begins.size(); ++b) {
    STD_TORCH_CHECK(begins[b] >= end && begins[b] <= rows, "temporal_attention: starts[", b, "] is ",
                    begins[b], ", expected ", end, " (",
                    b ? "where the video before it ends" : "the first row", ") to R = ", rows);
    STD_TORCH_CHECK(counts[b] >= 0 && counts[b] <= rows - begins[b], "temporal_attention: lengths[", b,
                    "] is ", counts[b], ", expected 0 to ", rows - begins[b], ", the rows from starts[", b,
                    "] to R = ", rows);
    videos.back().total = begins[b] - videos.back().start;
    videos.push_back({0, begins[b], rows - begins[b], counts[b]});
    end = begins[b] + counts[b];
  }
  return videos;
}

std::vector<Video> read_videos(const Videos& videos, const AttentionSizes& sizes) {
  if (videos.starts) return read_rows(*videos.starts, *videos.lengths, sizes.length);
  std::vector<Video> found;
  for (int64_t b = 0; b < sizes.batch; ++b) found.push_back({b, 0, sizes.length, sizes.length});
  if (!videos.lengths) return found;
  const std::vector<int64_t> lengths = read_integers(*videos.lengths);
  for (Video& video : found) {
    video.length = lengths[video.batch];
    STD_TORCH_CHECK(video.length >= 0 && video.length <= video.total, "temporal_attention: lengths[",
                    video.batch, "] is ", video.length, ", expected 0 to T = ", video.total);
  }
  return found;
}

void check_dtype(const Tensor& q) {
  STD_TORCH_CHECK(q.scalar_type() == ScalarType::Float || q.scalar_type() == ScalarType::Double,
                  "temporal_attention: q has dtype ", torch::headeronly::toString(q.scalar_type()),
                  ", expected float32 or float64 on the CPU");
}

template <class T>
Head<T> make_head(const AttentionSizes& sizes, const Video& video, double scale, const Slice<T>& q,
                  const Slice<T>& k, const Slice<T>& v) {
  return {video.length, video.total, sizes.window, sizes.dim, static_cast<T>(scale), q, k, v};
}

// An item of the forward pass is kTile queries of one video and head.
template <class T>
void forward(const AttentionSizes& sizes, const std::vector<Video>& videos, double scale, const Tensor& q,
             const Tensor& k, const Tensor& v, Tensor& out, Tensor& lse) {
  const View<const T> q_view = read<T>(q), k_view = read<T>(k), v_view = read<T>(v);
  const View<T> out_view = write<T>(out), lse_view = write<T>(lse);
  const auto routines = best_routines<T>();
  const auto tiles_of = [](const Video& video) { return (video.total + kTile - 1) / kTile; };
  std::vector<int64_t> before{0};  // for each video, the number of items of earlier videos
  for (const Video& video : videos) before.push_back(before.back() + sizes.heads * tiles_of(video));
  for_each_item<T>(before.back(), attention::forward_room(sizes.dim), [&](int64_t item, T* scratch) {
    const int64_t b = std::ranges::upper_bound(before, item) - before.begin() - 1;
    const Video& video = videos[b];
    const int64_t tiles = tiles_of(video), h = (item - before[b]) / tiles,
                  first = (item - before[b]) % tiles * kTile;
    const Head<T> head =
        make_head(sizes, video, scale, q_view.at(video, h), k_view.at(video, h), v_view.at(video, h));
    const int64_t lanes = attention::tile_lanes(video.length, sizes.window);
    for (int64_t t = first; t < std::min(first + kTile, video.total); t += lanes) {
      routines.forward(head, t, lanes, out_view.output(video, h), lse_view.begin(video, h), scratch);
    }
  });
}

// An item of the backward pass is one video and head. Each gradient has a single writer, so no atomics and no
// copies are needed, the bits are always the same, and every score is computed once.
template <class T>
void backward(const AttentionSizes& sizes, std::vector<Video> videos, double scale, const Tensor& grad_out,
              const OptionalTensor& grad_lse, const Tensor& q, const Tensor& k, const Tensor& v,
              const Tensor& out, const Tensor& lse, Tensor& grad_q, Tensor& grad_k, Tensor& grad_v) {
  const View<const T> q_view = read<T>(q), k_view = read<T>(k), v_view = read<T>(v), out_view = read<T>(out);
  const View<const T> grad_view = read<T>(grad_out), lse_view = read<T>(lse);
  const View<const T> grad_lse_view = grad_lse ? read<T>(*grad_lse) : View<const T>{};
  const View<T> grad_q_view = write<T>(grad_q), grad_k_view = write<T>(grad_k),
                grad_v_view = write<T>(grad_v);
  const auto routines = best_routines<T>();
  // The longest come first: if a long one were last, all threads would wait for it.
  std::ranges::stable_sort(videos, std::greater<>{}, &Video::length);
  const int64_t items = static_cast<int64_t>(videos.size()) * sizes.heads;
  const int64_t room = attention::backward_room(sizes.dim, videos.empty() ? 0 : videos.front().length);
  for_each_item<T>(items, room, [&](int64_t item, T* scratch) {
    const Video& video = videos[item / sizes.heads];
    const int64_t h = item % sizes.heads;
    const Head<T> head =
        make_head(sizes, video, scale, q_view.at(video, h), k_view.at(video, h), v_view.at(video, h));
    const HeadGradients<T> grads{
        grad_view.at(video, h),       out_view.at(video, h),
        lse_view.at(video, h),        grad_lse ? grad_lse_view.at(video, h) : Slice<T>{},
        grad_q_view.output(video, h), grad_k_view.output(video, h),
        grad_v_view.output(video, h)};
    routines.backward(head, grads, attention::tile_lanes(video.length, sizes.window), scratch);
  });
}

// ---- the entries ----
void attend(const AttentionSizes& sizes, const Qkv& x, const Videos& videos, double scale, Tensor out,
            Tensor& lse) {
  const std::vector<Video> found = read_videos(videos, sizes);
  const auto run = x.q.scalar_type() == ScalarType::Float ? forward<float> : forward<double>;
  run(sizes, found, scale, x.q, x.k, x.v, out, lse);
}

void attend_backward(const AttentionSizes& sizes, const Tensor& grad_out, const OptionalTensor& grad_lse,
                     const Qkv& x, const Tensor& out, const Tensor& lse, const Videos& videos, double scale,
                     Qkv grads) {
  check_attention_backward(grad_out, grad_lse, x.q, out, lse);
  const std::vector<Video> found = read_videos(videos, sizes);
  const auto run = x.q.scalar_type() == ScalarType::Float ? backward<float> : backward<double>;
  run(sizes, found, scale, grad_out, grad_lse, x.q, x.k, x.v, out, lse, grads.q, grads.k, grads.v);
}

struct Device {
  static constexpr auto check = check_dtype;
  static constexpr auto attend = wtal::attend;
  static constexpr auto attend_backward = wtal::attend_backward;
};

}  // namespace
}  // namespace wtal

STABLE_TORCH_LIBRARY_IMPL(wtal, CPU, m) { wtal::AttentionEntries<wtal::Device>::add_to(m); }
