#include "matching.h"

#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "matching_rule.h"

namespace py = pybind11;

namespace wtal {
namespace {

std::string shape_of(const py::array& array) {
  std::string text = "[";
  for (py::ssize_t dim = 0; dim < array.ndim(); ++dim) {
    if (dim > 0) text += ", ";
    text += std::to_string(array.shape(dim));
  }
  return text + "]";
}

[[noreturn]] void fail(const std::string& what, const std::string& expected) {
  throw std::invalid_argument("match_detections: " + what + ", expected " + expected);
}

std::string element(const char* name, py::ssize_t index) {
  return std::string(name) + "[" + std::to_string(index) + "] is ";
}

std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

std::string shape_fault(const char* name, const py::array& array) {
  return std::string(name) + " has shape " + shape_of(array);
}

void check_segments(const char* name, const Doubles& segments) {
  if (segments.ndim() != 2 || segments.shape(1) != 2) {
    fail(shape_fault(name, segments), "[N, 2] of (start, end)");
  }
  const double* data = segments.data();
  for (py::ssize_t i = 0; i < segments.shape(0); ++i) {
    const double start = data[2 * i], end = data[2 * i + 1];
    if (!std::isfinite(start) || !std::isfinite(end) || end < start) {
      fail(element(name, i) + "(" + text_of(start) + ", " + text_of(end) + ")", "finite start <= end");
    }
  }
}

void check_length(const char* name, const py::array& array, py::ssize_t count, const char* of) {
  if (array.ndim() != 1 || array.shape(0) != count) {
    fail(shape_fault(name, array), "[" + std::to_string(count) + "], as many as " + of);
  }
}

}  // namespace

Indices match_detections(const Doubles& segments, const Doubles& scores, const Indices& videos,
                         const Indices& classes, const Doubles& truth_segments, const Indices& truth_videos,
                         const Indices& truth_classes, const Doubles& tiou) {
  static_assert(sizeof(Segment) == 2 * sizeof(double));
  check_segments("segments", segments);
  check_segments("truth_segments", truth_segments);
  const py::ssize_t num_detections = segments.shape(0), num_truth = truth_segments.shape(0);
  check_length("scores", scores, num_detections, "segments");
  check_length("videos", videos, num_detections, "segments");
  check_length("classes", classes, num_detections, "segments");
  check_length("truth_videos", truth_videos, num_truth, "truth_segments");
  check_length("truth_classes", truth_classes, num_truth, "truth_segments");
  for (py::ssize_t i = 0; i < num_detections; ++i) {
    if (!std::isfinite(scores.data()[i])) {
      fail(element("scores", i) + text_of(scores.data()[i]), "a finite number");
    }
  }
  if (tiou.ndim() != 1) fail(shape_fault("tiou", tiou), "[K]");
  for (py::ssize_t k = 0; k < tiou.shape(0); ++k) {
    if (!(tiou.data()[k] > 0 && tiou.data()[k] <= 1)) {
      fail(element("tiou", k) + text_of(tiou.data()[k]), "above 0 and up to 1");
    }
  }
  Indices matched({tiou.shape(0), num_detections});
  const auto rows = [](const Doubles& pairs) { return reinterpret_cast<const Segment*>(pairs.data()); };
  const Columns detections{rows(segments), videos.data(), classes.data(), num_detections};
  const Columns truth{rows(truth_segments), truth_videos.data(), truth_classes.data(), num_truth};
  int64_t* out = matched.mutable_data();
  {
    py::gil_scoped_release release;
    match(detections, scores.data(), truth, tiou.data(), tiou.shape(0), out);
  }
  return matched;
}

}  // namespace wtal
