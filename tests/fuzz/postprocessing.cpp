// The C++ entry points of post-processing against their definitions: soft_nms at every level of vectors,
// group_proposals, match_detections. For libFuzzer:
//
//   clang++ -g -O1 -std=c++20 -ffp-contract=off -fsanitize=fuzzer,address,undefined -Icsrc \
//     tests/fuzz/postprocessing.cpp -o build/fuzz && build/fuzz -max_total_time=600
//
// With -DSTANDALONE any compiler makes a program of it: postprocessing SEED COUNT.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cpu/group_proposals_columns.h"
#include "cpu/soft_nms_group.h"
#include "matching_rule.h"

namespace {

using namespace wtal;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "differs from its definition: %s\n", what);
  std::abort();
}

// Numbers from the fuzzer's bytes, and when they run out from a generator that they seeded: a short input
// makes a large problem too.
class Source {
 public:
  Source(const uint8_t* data, size_t size) : data_(data), size_(size) {
    for (size_t i = 0; i < size; ++i) state_ = (state_ ^ data[i]) * 0x100000001b3u;
  }
  uint32_t byte() {
    if (size_ > 0) {
      --size_;
      return *data_++;
    }
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 56);
  }
  uint32_t below(uint32_t n) { return (byte() << 16 | byte() << 8 | byte()) % n; }
  double unit() { return below(1 << 20) / static_cast<double>(1 << 20); }

 private:
  const uint8_t* data_;
  size_t size_;
  uint64_t state_ = 0xcbf29ce484222325u;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// ---- soft_nms
// ----------------------------------------------------------------------------------------------------
template <class T>
struct Taken {
  std::vector<int64_t> rows;
  std::vector<T> scores;
};

template <class T>
Taken<T> define_soft_nms(const Suppression<T>& rule, const std::vector<T>& segments, std::vector<T> scores,
                         int64_t limit) {
  Taken<T> taken;
  const auto size = static_cast<int64_t>(scores.size());
  std::vector<bool> running(size);
  for (int64_t i = 0; i < size; ++i) running[i] = !(scores[i] < rule.min_score);
  while (static_cast<int64_t>(taken.rows.size()) < limit) {
    int64_t best = -1;
    for (int64_t i = 0; i < size; ++i) {
      if (running[i] && (best < 0 || scores[i] > scores[best])) best = i;
    }
    if (best < 0) break;
    taken.rows.push_back(best);
    taken.scores.push_back(scores[best]);
    running[best] = false;
    const Interval<T> chosen = make_interval(segments[2 * best], segments[2 * best + 1]);
    for (int64_t i = 0; i < size; ++i) {
      if (!running[i]) continue;
      const T overlap = tiou(chosen, make_interval(segments[2 * i], segments[2 * i + 1]));
      if (rule.method == SuppressionMethod::kGaussian) {
        scores[i] = scores[i] * exp_nonpositive<T>(-(overlap * overlap) / rule.sigma);
      } else if (overlap >= rule.iou_threshold) {
        if (rule.method == SuppressionMethod::kHard) running[i] = false;
        if (rule.method == SuppressionMethod::kLinear) scores[i] = scores[i] * (T(1) - overlap);
      }
      if (scores[i] < rule.min_score) running[i] = false;
    }
  }
  return taken;
}

template <class T>
void try_soft_nms(Source& source) {
  constexpr double kSigmas[] = {0.5, 0.01, 100, 1e-40}, kMinimums[] = {0.001, 0, 0.3, 1e-30};
  constexpr double kThresholds[] = {0.5, 0, 0.2, 1, 1.5};
  const auto method = static_cast<SuppressionMethod>(source.below(3));
  const Suppression<T> rule{method, static_cast<T>(kSigmas[source.below(4)]),
                            static_cast<T>(kThresholds[source.below(5)]),
                            static_cast<T>(kMinimums[source.below(4)])};
  const int64_t size = source.below(source.below(2) ? 600 : 40);
  const int64_t limit = source.below(2) ? size : source.below(20);
  const uint32_t kind = source.below(6), values = source.below(5);
  std::vector<T> segments, scores;
  for (int64_t i = 0; i < size; ++i) {
    double start = source.unit() * static_cast<double>(size) / 8, length = std::exp2(source.unit() * 12 - 6);
    if (kind == 1) start = std::floor(start), length = std::floor(length);
    if (kind == 2) start = 3, length = 2;
    if (kind == 3) start += 1e6;
    if (kind == 4) start = (source.unit() - 0.5) * 1e38, length = source.unit() * 1e38;
    if (kind == 5) length = source.below(2) ? 0 : length * 1000;
    const auto first = static_cast<T>(start);
    segments.push_back(first);
    segments.push_back(std::max(first, static_cast<T>(start + length)));
    double score = source.unit();
    if (values == 1) score = source.below(4) / 3.0;
    if (values == 2) score = score - 0.5;
    if (values == 3) score = score * 1e-37;
    if (values == 4) score = source.below(2) ? -0.0 : 0.0;
    scores.push_back(static_cast<T>(score));
  }
  const Taken<T> expected = define_soft_nms(rule, segments, scores, limit);
  const int64_t by_start = source.below(2) ? 2048 : 0;  // else in octaves
  const auto check = [&](const Sweep<T>& sweep, const char* what) {
    IntervalIndex<T> index(sweep, by_start);
    std::vector<int64_t> rows(size);
    std::vector<T> kept(size);
    for (int repeat = 0; repeat < 2; ++repeat) {  // an index serves one group after another
      const int64_t count = suppress_group(rule, segments.data(), scores.data(), size, limit, int64_t{0},
                                           index, rows.data(), kept.data());
      if (count != static_cast<int64_t>(expected.rows.size())) fail(what);
      rows.resize(count);
      kept.resize(count);
      if (!same_bits(rows, expected.rows) || !same_bits(kept, expected.scores)) fail(what);
      rows.resize(size);
      kept.resize(size);
    }
  };
  check(sweep_baseline<T>, "soft_nms, baseline");
#ifdef WTAL_X86_LEVELS
  if (__builtin_cpu_supports("avx2")) check(sweep_avx2<T>, "soft_nms, AVX2");
  if (&widest_sweep<T>() == &sweep_avx512<T>) check(sweep_avx512<T>, "soft_nms, AVX-512");
#endif
}

// ---- group_proposals
// ---------------------------------------------------------------------------------------------
// The definition that the kernels are compared with. Whether a lower threshold (or an earlier equal one)
// gives this run too. All scores of the run are above the lower threshold, so it gives the same run if and
// only if neither neighbour of the run is above it.
template <class T>
bool given_before(const Grouping<T>& grouping, const Column<T>& column, int64_t k, Run run) {
  const T threshold = grouping.thresholds[k];
  for (int64_t other = 0; other < grouping.levels; ++other) {
    const T lower = grouping.thresholds[other];
    if (!(lower < threshold || (lower == threshold && other < k))) continue;
    if (!column.above(run.start - 1, lower) && !column.above(run.end, lower)) return true;
  }
  return false;
}

// Whether a maximal run is a proposal.
template <class T>
bool is_proposal(const Grouping<T>& grouping, const Column<T>& column, int64_t k, Run run) {
  return run.end - run.start >= grouping.min_length &&
         !(grouping.unique && given_before(grouping, column, k, run));
}

template <class T>
void try_group_proposals(Source& source) {
  const int64_t snippets = source.below(300), classes = 1 + source.below(20), levels = source.below(5);
  const uint32_t kind = source.below(4);
  std::vector<T> scores, thresholds;
  double walk = 0.5;
  for (int64_t i = 0; i < snippets * classes; ++i) {
    walk = kind == 1 ? source.below(4) / 4.0 : kind == 2 ? walk + (source.unit() - 0.5) / 4 : source.unit();
    scores.push_back(kind == 3 && source.below(8) == 0 ? std::numeric_limits<T>::quiet_NaN()
                                                       : static_cast<T>(walk));
  }
  for (int64_t k = 0; k < levels; ++k) thresholds.push_back(static_cast<T>(source.below(6) / 4.0));
  const int64_t length = source.below(2) ? snippets : source.below(static_cast<uint32_t>(snippets) + 1);
  Grouping<T> grouping{scores.data(),
                       snippets * classes,
                       classes,
                       1,
                       1,
                       snippets,
                       classes,
                       levels,
                       thresholds.data(),
                       &length,
                       nullptr,
                       1 + source.below(3),
                       static_cast<ProposalScore>(source.below(3)),
                       source.below(2) != 0,
                       source.below(2) != 0};
  const auto check = [&](MasksAbove<T> masks_above, const char* what) {
    ColumnProposals<T> found;
    ColumnGrouper<T>(grouping, masks_above).group(0, classes, found);
    size_t row = 0;
    for (int64_t c = 0; c < classes; ++c) {
      Column<T> column = grouping.column(0, c);
      if (grouping.rescale) {
        ScoreRange<T> range;
        for (int64_t t = 0; t < column.length; ++t) range.add(column[t]);
        column.rescaled = true;
        column.low = range.low;
        column.spread = range.spread();
      }
      for (int64_t k = 0; k < levels; ++k) {
        int64_t count = 0;
        for (int64_t t = 0; t < column.length; ++t) {
          if (!column.above(t, thresholds[k]) || column.above(t - 1, thresholds[k])) continue;
          Run run{t, t};
          while (column.above(run.end, thresholds[k])) ++run.end;
          if (!is_proposal(grouping, column, k, run)) continue;
          ++count;
          if (row == found.runs.size()) fail(what);
          const T score = proposal_score(grouping.score, column, run);
          if (found.runs[row].start != run.start || found.runs[row].end != run.end) fail(what);
          if (!(found.scores[row] == score || (score != score && found.scores[row] != found.scores[row])))
            fail(what);
          ++row;
        }
        if (found.counts[c * levels + k] != count) fail(what);
      }
    }
    if (row != found.runs.size()) fail(what);
  };
  check(&masks_above_baseline<T>, "group_proposals, baseline");
#ifdef WTAL_X86_LEVELS
  if (__builtin_cpu_supports("avx2")) check(&masks_above_avx2, "group_proposals, AVX2");
  if (__builtin_cpu_supports("avx512f")) check(&masks_above_avx512, "group_proposals, AVX-512");
#endif
}

// ---- match_detections
// --------------------------------------------------------------------------------------------
void try_matching(Source& source) {
  const int64_t detections = source.below(80), truths = source.below(30), levels = source.below(5);
  const uint32_t groups = 1 + source.below(4), grid = source.below(2) ? 12 : 1000;
  const auto segments_of = [&](int64_t count) {
    std::vector<Segment> segments;
    for (int64_t i = 0; i < count; ++i) {
      const double a = source.below(grid), b = source.below(grid);
      segments.push_back({std::min(a, b), std::max(a, b)});
    }
    return segments;
  };
  const auto labels_of = [&](int64_t count) {
    std::vector<int64_t> labels;
    for (int64_t i = 0; i < count; ++i) labels.push_back(static_cast<int64_t>(source.below(groups)) - 1);
    return labels;
  };
  const std::vector<Segment> segments = segments_of(detections), truth = segments_of(truths);
  const std::vector<int64_t> videos = labels_of(detections), classes = labels_of(detections);
  const std::vector<int64_t> truth_videos = labels_of(truths), truth_classes = labels_of(truths);
  std::vector<double> scores, tiou;
  for (int64_t i = 0; i < detections; ++i) scores.push_back(source.below(6));
  for (int64_t k = 0; k < levels; ++k) tiou.push_back((1 + source.below(10)) / 10.0);
  std::vector<int64_t> found(levels * detections, 77);
  match({segments.data(), videos.data(), classes.data(), detections}, scores.data(),
        {truth.data(), truth_videos.data(), truth_classes.data(), truths}, tiou.data(), levels, found.data());

  std::vector<int64_t> expected(levels * detections, -1);
  for (int64_t k = 0; k < levels; ++k) {
    std::vector<bool> taken(truths), done(detections);
    for (int64_t turn = 0; turn < detections; ++turn) {
      int64_t next = -1;
      for (int64_t i = 0; i < detections; ++i) {
        if (!done[i] && (next < 0 || scores[i] > scores[next])) next = i;
      }
      done[next] = true;
      int64_t best = -1;
      double highest = 0;
      for (int64_t g = 0; g < truths; ++g) {
        if (taken[g] || truth_videos[g] != videos[next] || truth_classes[g] != classes[next]) continue;
        const double overlap = temporal_iou(segments[next], truth[g]);
        if (overlap >= tiou[k] && overlap >= highest) {
          best = g;
          highest = overlap;
        }
      }
      if (best >= 0) taken[best] = true;
      expected[k * detections + next] = best;
    }
  }
  if (!same_bits(found, expected)) fail("match_detections");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Source source(data, size);
  switch (source.below(5)) {
    case 0:
      try_soft_nms<float>(source);
      break;
    case 1:
      try_soft_nms<double>(source);
      break;
    case 2:
      try_group_proposals<float>(source);
      break;
    case 3:
      try_group_proposals<double>(source);
      break;
    default:
      try_matching(source);
  }
  return 0;
}

#ifdef STANDALONE
int main(int count, char** arguments) {
  if (count != 3) return 2;
  const uint64_t seed = std::strtoull(arguments[1], nullptr, 10),
                 runs = std::strtoull(arguments[2], nullptr, 10);
  for (uint64_t run = 0; run < runs; ++run) {
    const uint64_t bytes[] = {seed, run};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes), sizeof(bytes));
  }
  std::printf("%llu runs\n", static_cast<unsigned long long>(runs));
}
#endif
