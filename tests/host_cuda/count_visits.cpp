// The kernel of soft_nms for large groups, with a count of the tiles that each warp visits: what a bad order
// of rows costs shows in no result. The warps' ballots of the tiles to visit are counted from outside, so the
// kernel needs no hook.
#include <algorithm>
#include <vector>

namespace {

std::vector<uint32_t> counts[32];  // for each warp: how many lanes said yes, vote after vote

unsigned counted(unsigned ballot) {
  if (threadIdx.x % 32 == 0) counts[threadIdx.x / 32].push_back(__builtin_popcount(ballot));
  return ballot;
}

}  // namespace

#undef __ballot_sync
#define __ballot_sync(mask, p) counted(::host_cuda::ballot(HOST_CUDA_SITE, mask, p))
#include "cuda/soft_nms_tiles.cuh"

namespace {

using namespace wtal;

// One group; a row goes only when it is taken. visits [limit, kNmsWarps]: of each selection, the tiles that
// each warp visits; ordered [count] and taken [limit] are as the kernel leaves them. Returns how many were
// taken, or -1 where a warp votes otherwise than once a selection and round of tiles, so that the count means
// something else.
template <class T>
int64_t suppress(uint64_t seed, const T* segments, const T* scores, int64_t count, int64_t limit,
                 OrderedRow<T>* ordered, int64_t* taken, uint32_t* visits) {
  host_cuda::shuffle_seed = seed;
  for (auto& one : counts) one.clear();
  const int64_t offsets[2] = {0, count};
  const long long faults[3] = {kNoFault, kNoFault, kNoFault};
  int64_t selected = 0;
  std::vector<int64_t> rows(count);
  std::vector<T> kept_scores(count);
  const Suppression<T> rule{SuppressionMethod::kGaussian, T(0.5), T(0.5), T(0)};
  host_cuda::launch(suppress_large_kernel<T>, 1, kNmsThreads, 0, NmsInput<T>{segments, scores, offsets, 1},
                    NmsSettings<T>{rule, limit}, faults, 0, ordered,
                    NmsKept<T>{rows.data(), kept_scores.data(), &selected});
  const size_t rounds = (TiledGroup<T>(ordered, count).tiles() + kNmsThreads - 1) / kNmsThreads;
  for (int warp = 0; warp < kNmsWarps; ++warp) {
    if (counts[warp].size() != selected * rounds) return -1;
    for (int64_t turn = 0; turn < selected; ++turn) {
      visits[turn * kNmsWarps + warp] = 0;
      for (size_t round = 0; round < rounds; ++round) {
        visits[turn * kNmsWarps + warp] += counts[warp][turn * rounds + round];
      }
    }
  }
  std::copy_n(rows.begin(), selected, taken);
  return selected;
}

}  // namespace

extern "C" {
__attribute__((visibility("default"))) int64_t suppress_float(uint64_t seed, const float* segments,
                                                              const float* scores, int64_t count,
                                                              int64_t limit, OrderedRow<float>* ordered,
                                                              int64_t* taken, uint32_t* visits) {
  return suppress(seed, segments, scores, count, limit, ordered, taken, visits);
}
__attribute__((visibility("default"))) int64_t suppress_double(uint64_t seed, const double* segments,
                                                               const double* scores, int64_t count,
                                                               int64_t limit, OrderedRow<double>* ordered,
                                                               int64_t* taken, uint32_t* visits) {
  return suppress(seed, segments, scores, count, limit, ordered, taken, visits);
}
}
