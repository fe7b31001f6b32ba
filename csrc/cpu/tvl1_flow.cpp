// tvl1_flow on the CPU: threads take whole pairs, so that their number changes no bit.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "common/shape.h"
#include "cpu/tvl1_flow_pair.h"

namespace wtal {
namespace {

// By its bits: this file is compiled for finite numbers only, where std::isfinite is always true.
bool finite(double value) { return (std::bit_cast<uint64_t>(value) >> 52 & 0x7ff) != 0x7ff; }

using flow::Settings;
using flow::Size;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using PairFlow = void (*)(const uint8_t*, const uint8_t*, float*, Size, const Settings&);

void pair_plain(const uint8_t* first, const uint8_t* second, float* out, Size size,
                const Settings& settings) {
  flow::flow_of_pair(first, second, out, size, settings);
}

#if defined(__x86_64__)
[[gnu::target("arch=x86-64-v3")]] void pair_avx2(const uint8_t* first, const uint8_t* second, float* out,
                                                 Size size, const Settings& settings) {
  flow::flow_of_pair(first, second, out, size, settings);
}

[[gnu::target("arch=x86-64-v4,prefer-vector-width=512")]] void pair_avx512(const uint8_t* first,
                                                                           const uint8_t* second, float* out,
                                                                           Size size,
                                                                           const Settings& settings) {
  flow::flow_of_pair(first, second, out, size, settings);
}
#endif

// The widest that the CPU has and that ATEN_CPU_CAPABILITY, torch's own variable, allows.
PairFlow pair_flow() {
#if defined(__x86_64__)
  const char* asked = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string_view limit = asked ? asked : "";
  if (__builtin_cpu_supports("x86-64-v4") && limit != "avx2" && limit != "default") return &pair_avx512;
  if (__builtin_cpu_supports("x86-64-v3") && limit != "default") return &pair_avx2;
#endif
  return &pair_plain;
}

void check(const Tensor& first, const Tensor& second, const Settings& s) {
  STD_TORCH_CHECK(first.scalar_type() == ScalarType::Byte && second.scalar_type() == ScalarType::Byte,
                  "tvl1_flow: first and second have dtypes ",
                  torch::headeronly::toString(first.scalar_type()), " and ",
                  torch::headeronly::toString(second.scalar_type()), ", expected uint8");
  STD_TORCH_CHECK(first.dim() == 3, "tvl1_flow: first has shape ", shape_of(first), ", expected [N, H, W]");
  STD_TORCH_CHECK(shape_of(first) == shape_of(second), "tvl1_flow: second has shape ", shape_of(second),
                  ", expected that of first, ", shape_of(first));
  STD_TORCH_CHECK(first.device() == second.device(), "tvl1_flow: second is not on the device of first");
  STD_TORCH_CHECK(s.median == 1 || s.median == 3 || s.median == 5, "tvl1_flow: median is ", s.median,
                  ", expected 1, 3 or 5");
  STD_TORCH_CHECK(s.theta > 0 && s.tau > 0 && s.lambda > 0 && finite(s.tau / s.theta) &&
                      finite(s.lambda * s.theta) && finite(s.epsilon) && s.epsilon >= 0,
                  "tvl1_flow: tau, lam, theta and epsilon are ", s.tau, ", ", s.lambda, ", ", s.theta,
                  " and ", s.epsilon, ", expected finite positive numbers (epsilon may be 0)");
  STD_TORCH_CHECK(finite(s.scale_step) && s.scale_step > 0 && s.scale_step < 1, "tvl1_flow: scale_step is ",
                  s.scale_step, ", expected a number between 0 and 1");
  STD_TORCH_CHECK(s.scales >= 1 && s.warps >= 1 && s.inner >= 1 && s.outer >= 1,
                  "tvl1_flow: scales, warps, inner and outer are ", s.scales, ", ", s.warps, ", ", s.inner,
                  " and ", s.outer, ", expected at least 1");
}

Tensor tvl1_flow(const Tensor& first, const Tensor& second, double tau, double lam, double theta,
                 int64_t scales, int64_t warps, double epsilon, int64_t inner, int64_t outer,
                 double scale_step, int64_t median) {
  const Settings settings{tau, lam, theta, epsilon, scale_step, scales, warps, inner, outer, median};
  check(first, second, settings);
  const Tensor firsts = torch::stable::contiguous(first), seconds = torch::stable::contiguous(second);
  const Size size{first.size(1), first.size(2)};
  const int64_t pairs = size.area() ? first.size(0) : 0;
  Tensor result =
      torch::stable::new_empty(first, {first.size(0), size.height, size.width, 2}, ScalarType::Float);
  const uint8_t *from = firsts.const_data_ptr<uint8_t>(), *to = seconds.const_data_ptr<uint8_t>();
  float* const out = result.mutable_data_ptr<float>();
  const PairFlow run = pair_flow();
  torch::stable::parallel_for(0, pairs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      run(from + n * size.area(), to + n * size.area(), out + 2 * n * size.area(), size, settings);
    }
  });
  return result;
}

STABLE_TORCH_LIBRARY_IMPL(wtal, CPU, m) { m.impl("tvl1_flow", TORCH_BOX(&tvl1_flow)); }

}  // namespace
}  // namespace wtal
