// tvl1_flow on the CPU: threads take whole pairs or, of few pairs, bands of rows. Their number changes no
// bit.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>

#include "common/tvl1_flow_args.h"
#include "cpu/team.h"
#include "cpu/tvl1_flow_pair.h"
#include "cpu/vector_level.h"

namespace wtal {
namespace {

using flow::Settings;
using flow::Size;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Every kernel for one kind of vectors. A function takes what it inlines for its own kind, a lambda would
// not.
#define WTAL_FLOW_KERNELS(name, attributes)                                                                  \
  attributes void name##_residual(flow::Fields& f, const flow::Plane& first, const flow::WarpSource& second, \
                                  int64_t begin, int64_t end) {                                              \
    flow::set_residual(f, first, second, begin, end);                                                        \
  }                                                                                                          \
  attributes void name##_median(const flow::Plane& from, flow::Plane& to, int64_t side, int64_t begin,       \
                                int64_t end) {                                                               \
    if (side == 3) flow::median_of_9(from, to, begin, end);                                                  \
    if (side == 5) flow::median_of_25(from, to, begin, end);                                                 \
  }                                                                                                          \
  attributes void name##_move(flow::Fields& f, int64_t band, const flow::Rates& rates) {                     \
    flow::move_band(f, band, rates);                                                                         \
  }                                                                                                          \
  attributes void name##_close(flow::Fields& f, int64_t band, const flow::Rates& rates) {                    \
    flow::close_band(f, band, rates);                                                                        \
  }                                                                                                          \
  constexpr flow::Kernels k_##name{name##_residual, name##_median, name##_move, name##_close};

WTAL_FLOW_KERNELS(plain, )
#ifdef WTAL_X86_LEVELS
WTAL_FLOW_KERNELS(avx2, [[gnu::target("arch=x86-64-v3")]])
WTAL_FLOW_KERNELS(avx512, [[gnu::target("arch=x86-64-v4,prefer-vector-width=512")]])
#endif

const flow::Kernels& kernels() {
#ifdef WTAL_X86_LEVELS
  if (vector_level() == VectorLevel::kAvx512) return k_avx512;
  if (vector_level() == VectorLevel::kAvx2) return k_avx2;
#endif
  return k_plain;
}

Tensor tvl1_flow(const Tensor& first, const Tensor& second, double tau, double lam, double theta,
                 int64_t scales, int64_t warps, double epsilon, int64_t inner, int64_t outer,
                 double scale_step, int64_t median) {
  const Settings settings{tau, lam, theta, epsilon, scale_step, scales, warps, inner, outer, median};
  flow::check_args(first, second, settings);
  const Tensor firsts = torch::stable::contiguous(first), seconds = torch::stable::contiguous(second);
  const Size size{first.size(1), first.size(2)};
  const int64_t pairs = size.area() ? first.size(0) : 0;
  Tensor result =
      torch::stable::new_empty(first, {first.size(0), size.height, size.width, 2}, ScalarType::Float);
  const uint8_t *from = firsts.const_data_ptr<uint8_t>(), *to = seconds.const_data_ptr<uint8_t>();
  float* const out = result.mutable_data_ptr<float>();
  const flow::Kernels& chosen = kernels();
  const auto pair = [&](int64_t n, const auto& each) {
    flow::flow_of_pair(from + n * size.area(), to + n * size.area(), out + 2 * n * size.area(), size,
                       settings, chosen, each);
  };
  const int64_t threads = torch::stable::get_num_threads();
  if (pairs < threads) {
    const int64_t members = std::min(threads, flow::kBands);
    Team team(members);
    const auto each = [&](int64_t count, const auto& function) { team.each(count, function); };
    torch::stable::parallel_for(0, members, 1, [&](int64_t begin, int64_t) {
      if (begin > 0) return team.help(begin);
      struct End {
        Team& team;
        ~End() { team.end(); }
      } end{team};
      for (int64_t n = 0; n < pairs; ++n) pair(n, each);
    });
  } else {
    const auto each = [](int64_t count, const auto& function) {
      for (int64_t i = 0; i < count; ++i) function(i);
    };
    torch::stable::parallel_for(0, pairs, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) pair(n, each);
    });
  }
  return result;
}

STABLE_TORCH_LIBRARY_IMPL(wtal, CPU, m) { m.impl("tvl1_flow", TORCH_BOX(&tvl1_flow)); }

}  // namespace
}  // namespace wtal
