// The interpolations of TV-L1 optical flow, like OpenCV's: bilinear between the levels of the pyramid,
// bicubic when an image is moved by the flow.
#pragma once
#include <cmath>
#include <cstdint>

#include "common/host_device.h"

namespace wtal::flow {

// The position of a target coordinate in the source: the lower neighbour, the upper neighbour, and the weight
// of the upper neighbour.
struct Tap {
  int64_t low, high;
  float weight;
};

// Pixel centres are at half integers, and edges are clamped. step: source pixels per target pixel.
WTAL_HOST_DEVICE inline Tap tap_of(int64_t i, double step, int64_t from) {
  const float at = static_cast<float>((static_cast<double>(i) + 0.5) * step - 0.5);
  int64_t whole = static_cast<int64_t>(floorf(at));
  float part = at - static_cast<float>(whole);
  if (whole < 0) {
    whole = 0;
    part = 0.f;
  }
  if (whole >= from - 1) {
    whole = from - 1;
    part = 0.f;
  }
  return {whole, whole + 1 < from ? whole + 1 : whole, part};
}

constexpr int kCubicSteps = 32;  // positions inside a pixel, as in OpenCV's remap

// Keys' cubic kernel with a = -0.75 at `fine` / 32 pixel: the weights of the four taps.
WTAL_HOST_DEVICE inline void cubic_weights(int64_t fine, float (&weights)[4]) {
  const float x = static_cast<float>(fine & (kCubicSteps - 1)) / kCubicSteps;
  const float a = -0.75f, after = x + 1.f, before = 1.f - x;
  weights[0] = ((a * after - 5.f * a) * after + 8.f * a) * after - 4.f * a;
  weights[1] = ((a + 2.f) * x - (a + 3.f)) * x * x + 1.f;
  weights[2] = ((a + 2.f) * before - (a + 3.f)) * before * before + 1.f;
  weights[3] = 1.f - weights[0] - weights[1] - weights[2];
}

}  // namespace wtal::flow
