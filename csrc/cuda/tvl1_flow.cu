// tvl1_flow on CUDA: kernels per pixel build the pyramid, then one block per pair computes each level. No
// kernel waits for the host.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <vector>

#include "common/tvl1_flow_args.h"
#include "cuda/capability.h"
#include "cuda/stream.h"
#include "cuda/tvl1_flow.cuh"

namespace wtal {
namespace {

using flow::kFlowThreads;
using flow::Settings;
using flow::Size;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

struct Work {
  int64_t pairs;
  cudaStream_t stream;
  const Tensor& like;

  Tensor planes(int64_t count, Size size) const {
    return torch::stable::new_empty(like, {pairs, count, size.height, size.width}, ScalarType::Float);
  }

  Tensor as_floats(const Tensor& image, Size size) const {
    Tensor result = planes(1, size);
    launch("tvl1_flow: pixels", flow::to_float_kernel, blocks_for(result.numel(), kFlowThreads), kFlowThreads,
           0, stream, image.const_data_ptr<uint8_t>(), result.mutable_data_ptr<float>(), result.numel());
    return result;
  }

  Tensor resized(const Tensor& from, Size size, double step_y, double step_x, float gain) const {
    Tensor result = planes(1, size);
    const flow::Resize resize{from.size(2), from.size(3), size.height, size.width, step_y, step_x, gain};
    launch("tvl1_flow: resizing", flow::resize_kernel, blocks_for(result.numel(), kFlowThreads), kFlowThreads,
           0, stream, from.const_data_ptr<float>(), result.mutable_data_ptr<float>(), pairs, resize);
    return result;
  }

  void refine(Tensor& u, Tensor& v, const Tensor& first, const Tensor& second, Size size,
              const Settings& s) const {
    Tensor scratch = planes(flow::kScratchPlanes, size);
    const flow::Level level{static_cast<int>(size.height),
                            static_cast<int>(size.width),
                            s.warps,
                            s.outer,
                            s.inner,
                            s.threshold(),
                            static_cast<float>(s.theta),
                            s.dual_rate(),
                            s.enough(size)};
    const auto kernel = s.median == 5   ? flow::refine_kernel<5>
                        : s.median == 3 ? flow::refine_kernel<3>
                                        : flow::refine_kernel<1>;
    launch("tvl1_flow: iterations", kernel, blocks_for(pairs, 1), kFlowThreads, 0, stream,
           first.const_data_ptr<float>(), second.const_data_ptr<float>(), u.mutable_data_ptr<float>(),
           v.mutable_data_ptr<float>(), scratch.mutable_data_ptr<float>(), pairs, level);
  }
};

Tensor tvl1_flow(const Tensor& first, const Tensor& second, double tau, double lam, double theta,
                 int64_t scales, int64_t warps, double epsilon, int64_t inner, int64_t outer,
                 double scale_step, int64_t median) {
  const Settings settings{tau, lam, theta, epsilon, scale_step, scales, warps, inner, outer, median};
  flow::check_args(first, second, settings);
  STD_TORCH_CHECK(on_cuda(first), "tvl1_flow: first is not on CUDA");
  const Size size{first.size(1), first.size(2)};
  STD_TORCH_CHECK(size.area() < std::numeric_limits<int>::max() - kFlowThreads, "tvl1_flow: first has shape ",
                  shape_of(first), ", expected fewer than 2^31 pixels an image");
  const DeviceGuard guard(first);
  check_capability("tvl1_flow");
  Tensor result =
      torch::stable::new_empty(first, {first.size(0), size.height, size.width, 2}, ScalarType::Float);
  if (result.numel() == 0) return result;
  const Work work{first.size(0), current_stream(first), first};

  const std::vector<Size> sizes = flow::pyramid_sizes(size, settings);
  std::vector<Tensor> firsts{work.as_floats(torch::stable::contiguous(first), size)};
  std::vector<Tensor> seconds{work.as_floats(torch::stable::contiguous(second), size)};
  for (size_t level = 1; level < sizes.size(); ++level) {
    firsts.push_back(work.resized(firsts.back(), sizes[level], 1 / scale_step, 1 / scale_step, 1.f));
    seconds.push_back(work.resized(seconds.back(), sizes[level], 1 / scale_step, 1 / scale_step, 1.f));
  }
  Tensor u = torch::stable::fill_(work.planes(1, sizes.back()), 0.),
         v = torch::stable::fill_(work.planes(1, sizes.back()), 0.);
  for (size_t level = sizes.size(); level-- > 0;) {
    const Size now = sizes[level];
    if (level + 1 < sizes.size()) {
      const Size before = sizes[level + 1];
      const double step_y = static_cast<double>(before.height) / static_cast<double>(now.height);
      const double step_x = static_cast<double>(before.width) / static_cast<double>(now.width);
      const auto gain = static_cast<float>(1 / scale_step);
      u = work.resized(u, now, step_y, step_x, gain);
      v = work.resized(v, now, step_y, step_x, gain);
    }
    work.refine(u, v, firsts[level], seconds[level], now, settings);
  }
  const int64_t count = work.pairs * size.area();
  launch("tvl1_flow: writing", flow::interleave_kernel, blocks_for(count, kFlowThreads), kFlowThreads, 0,
         work.stream, u.const_data_ptr<float>(), v.const_data_ptr<float>(), result.mutable_data_ptr<float>(),
         count);
  return result;
}

STABLE_TORCH_LIBRARY_IMPL(wtal, CUDA, m) { m.impl("tvl1_flow", TORCH_BOX(&tvl1_flow)); }

}  // namespace
}  // namespace wtal
