// The matching rule itself, on plain arrays: no Python in here, so that it can be fuzzed.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

namespace wtal {

struct Segment {
  double start, end;
};

// The official arithmetic. Where both have length zero it divides 0 by 0, and NaN then passes every
// threshold; here they overlap fully if they are the same point, else not at all.
inline double temporal_iou(const Segment& a, const Segment& b) {
  const double inter = std::max(0.0, std::min(a.end, b.end) - std::max(a.start, b.start));
  const double sum = (b.end - b.start) + (a.end - a.start) - inter;
  if (sum > 0) return inter / sum;
  return a.start == b.start && a.end == b.end ? 1.0 : 0.0;
}

// Detections or ground truth as columns: each array has `count` entries.
struct Columns {
  const Segment* segments;
  const int64_t* videos;
  const int64_t* classes;
  int64_t count;
};

// scores [detections.count]; tiou [num_tiou]; matched [num_tiou, detections.count]: the ground truth that
// each detection takes at each threshold, -1 for none.
inline void match(const Columns& detections, const double* scores, const Columns& truth, const double* tiou,
                  int64_t num_tiou, int64_t* matched) {
  const int64_t num_detections = detections.count, num_truth = truth.count;
  std::fill_n(matched, num_tiou * num_detections, int64_t{-1});
  if (num_truth == 0 || num_tiou == 0) return;

  // Ground truth by (class, video), inside a group by index.
  using Group = std::pair<int64_t, int64_t>;
  std::vector<int64_t> by_group(num_truth);
  std::iota(by_group.begin(), by_group.end(), int64_t{0});
  std::stable_sort(by_group.begin(), by_group.end(), [&](int64_t a, int64_t b) {
    return Group(truth.classes[a], truth.videos[a]) < Group(truth.classes[b], truth.videos[b]);
  });
  std::vector<Group> groups;         // the distinct ones, rising
  std::vector<int64_t> first_truth;  // of each group, in by_group
  for (int64_t place = 0; place < num_truth; ++place) {
    const Group group(truth.classes[by_group[place]], truth.videos[by_group[place]]);
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
    const Group group(detections.classes[i], detections.videos[i]);
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
        const double overlap = temporal_iou(detections.segments[detection], truth.segments[by_group[place]]);
        if (overlap >= lowest) near.emplace_back(overlap, by_group[place]);
      }
      // By falling tIoU, and of equal ones by falling index: the official argsort()[::-1].
      std::sort(near.begin(), near.end(), std::greater<>());
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

}  // namespace wtal
