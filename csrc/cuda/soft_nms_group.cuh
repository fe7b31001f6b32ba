// What a kernel of soft_nms works on: all groups, how they are suppressed, what is kept, and one group of
// them.
#pragma once
#include "common/nms_values.h"
#include "common/soft_nms_decay.h"
#include "cuda/launch.cuh"

namespace wtal {

// What is to be suppressed: group g has rows offsets[g] to offsets[g + 1].
template <class T>
struct NmsInput {
  const T* segments;       // [N, 2]
  const T* scores;         // [N]
  const int64_t* offsets;  // [G + 1]
  int64_t groups;          // G
};

// How: at most `limit` rows of each group are kept.
template <class T>
struct NmsSettings {
  Suppression<T> rule;
  int64_t limit;
};

// What is kept of each group, from offsets[g] on: rows in the order in which they are taken, their scores,
// and how many there are.
template <class T>
struct NmsKept {
  int64_t* rows;    // [N]
  T* scores;        // [N]
  int64_t* counts;  // [G]
};

// One group: rows [begin, end); what is kept goes to `begin` on.
template <class T>
struct NmsGroup {
  NmsInput<T> input;
  NmsKept<T> kept;
  int64_t begin, end;

  __device__ uint32_t size() const { return static_cast<uint32_t>(end - begin); }
  __device__ T score(uint32_t row) const { return input.scores[begin + row]; }
  __device__ Interval<T> interval(uint32_t row) const {
    const int64_t i = begin + row;
    return make_interval(input.segments[2 * i], input.segments[2 * i + 1]);
  }
  __device__ void take(int64_t selected, uint32_t row, T score) const {
    kept.rows[begin + selected] = begin + row;
    kept.scores[begin + selected] = score;
  }
};

__device__ inline bool no_fault(const long long* faults) {
  return faults[0] == kNoFault && faults[1] == kNoFault && faults[2] == kNoFault;
}

}  // namespace wtal
