#include "matching.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace wtal {
namespace {

std::string shape_of(const py::array& array) {
  std::string text = "[";
  for (py::ssize_t dim = 0; dim < array.ndim(); ++dim) {
    text += (dim ? ", " : "") + std::to_string(array.shape(dim));
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

struct Segment {
  double start, end;
};

// The official arithmetic. Where both have length zero it divides 0 by 0, and NaN then passes every
// threshold; here they overlap fully if they are the same point, else not at all.
double temporal_iou(const Segment& a, const Segment& b) {
  const double inter = std::max(0.0, std::min(a.end, b.end) - std::max(a.start, b.start));
  const double sum = (b.end - b.start) + (a.end - a.start) - inter;
  if (sum > 0) return inter / sum;
  return a.start == b.start && a.end == b.end ? 1.0 : 0.0;
}

void match(const Segment* segments, const double* scores, const int64_t* videos, const int64_t* classes,
           int64_t num_detections, const Segment* truth, const int64_t* truth_videos,
           const int64_t* truth_classes, int64_t num_truth, const double* tiou, int64_t num_tiou,
           int64_t* matched) {
  std::fill_n(matched, num_tiou * num_detections, int64_t{-1});
  if (num_truth == 0 || num_tiou == 0) return;

  // Ground truth by (class, video), inside a group by index.
  using Group = std::pair<int64_t, int64_t>;
  std::vector<int64_t> by_group(num_truth);
  std::iota(by_group.begin(), by_group.end(), int64_t{0});
  std::stable_sort(by_group.begin(), by_group.end(), [&](int64_t a, int64_t b) {
    return Group(truth_classes[a], truth_videos[a]) < Group(truth_classes[b], truth_videos[b]);
  });
  std::vector<Group> groups;         // the distinct ones, rising
  std::vector<int64_t> first_truth;  // of each group, in by_group
  for (int64_t place = 0; place < num_truth; ++place) {
    const Group group(truth_classes[by_group[place]], truth_videos[by_group[place]]);
    if (groups.empty() || groups.back() != group) {
      groups.push_back(group);
      first_truth.push_back(place);
    }
  }
  first_truth.push_back(num_truth);

  // Detections of these groups; most others belong to none. Neighbours often share one.
  std::vector<std::vector<int64_t>> members(groups.size());
  size_t at = 0;
  for (int64_t i = 0; i < num_detections; ++i) {
    const Group group(classes[i], videos[i]);
    if (at == groups.size() || groups[at] != group) {
      at = std::lower_bound(groups.begin(), groups.end(), group) - groups.begin();
      if (at == groups.size() || groups[at] != group) {
        at = groups.size();
        continue;
      }
    }
    members[at].push_back(i);
  }

  const double lowest = *std::min_element(tiou, tiou + num_tiou);
  std::vector<char> taken(num_tiou * num_truth, 0);
  std::vector<std::pair<double, int64_t>> near;  // (tIoU, ground truth)
  for (size_t group = 0; group < groups.size(); ++group) {
    // By falling score, then by index: within a group this is the official order, and groups do not see each
    // other.
    std::stable_sort(members[group].begin(), members[group].end(),
                     [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    for (const int64_t detection : members[group]) {
      near.clear();
      for (int64_t place = first_truth[group]; place < first_truth[group + 1]; ++place) {
        const double overlap = temporal_iou(segments[detection], truth[by_group[place]]);
        if (overlap >= lowest) near.emplace_back(overlap, by_group[place]);
      }
      std::stable_sort(near.begin(), near.end(),
                       [](const auto& a, const auto& b) { return a.first > b.first; });
      for (int64_t k = 0; k < num_tiou; ++k) {
        for (const auto& [overlap, index] : near) {
          if (overlap < tiou[k]) break;
          if (taken[k * num_truth + index]) continue;
          taken[k * num_truth + index] = 1;
          matched[k * num_detections + detection] = index;
          break;
        }
      }
    }
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
  const auto* boxes = reinterpret_cast<const Segment*>(segments.data());
  const auto* truth = reinterpret_cast<const Segment*>(truth_segments.data());
  int64_t* out = matched.mutable_data();
  {
    py::gil_scoped_release release;
    match(boxes, scores.data(), videos.data(), classes.data(), num_detections, truth, truth_videos.data(),
          truth_classes.data(), num_truth, tiou.data(), tiou.shape(0), out);
  }
  return matched;
}

}  // namespace wtal
