// soft_nms of large groups on CUDA: a block a group. Rows lie in tiles, and of each tile it is known how far
// its rows reach and which is the first to take. A selection looks at these, and at the rows of such tiles
// alone that the selected segment may overlap; all other rows keep their scores.
#pragma once
#include "cuda/soft_nms_order.cuh"

namespace wtal {

// At most so many tiles; those of a group of kTiles * kWarpSize rows or more have more rows each.
constexpr int kTiles = 2 * kNmsThreads;

// What is known of each tile, in shared memory: no row of it starts before `low` or ends after `high`, and
// `key` and `row` are of the first to take. A thread looks after the slots threadIdx.x, threadIdx.x +
// kNmsThreads, ... and nobody else reads them.
template <class T>
struct TileSlots {
  T low[kTiles], high[kTiles];
  typename Front<T>::Key key[kTiles];
  uint32_t row[kTiles];

  __device__ Front<T> first(uint32_t slot) const { return {key[slot], row[slot]}; }
  __device__ void set_first(uint32_t slot, const Front<T>& front) {
    key[slot] = front.key;
    row[slot] = front.row;
  }
  __device__ bool overlaps(uint32_t slot, const Interval<T>& taken) const {
    return low[slot] < taken.end && high[slot] > taken.start;
  }
};

// The selected row, as the `turn`-th of the group.
template <class T>
struct Selection {
  uint32_t row;
  Interval<T> interval;
  int64_t turn;
};

// A group in tiles of kWarpSize * `loads` rows.
template <class T>
struct TiledGroup {
  OrderedRow<T>* ordered;
  uint32_t count, loads;

  __device__ TiledGroup(OrderedRow<T>* ordered, uint32_t count)
      : ordered(ordered), count(count), loads(count / (kTiles * kWarpSize) + 1) {}

  __device__ uint32_t rows() const { return kWarpSize * loads; }
  __device__ uint32_t tiles() const { return (count + rows() - 1) / rows(); }

  // Tiles side by side belong to different warps, which share the work where a selection overlaps them all.
  __device__ static uint32_t tile_of(uint32_t round, uint32_t thread) {
    return round + thread % kWarpSize * kNmsWarps + thread / kWarpSize;
  }
};

// Looks through the rows of a thread's tile, and notes what is known of it. Returns the first to take.
template <class T>
__device__ inline Front<T> open_slot(const TiledGroup<T>& group, uint32_t tile, uint32_t slot,
                                     TileSlots<T>& slots) {
  T low = kInfinity<T>, high = -kInfinity<T>;
  Front<T> front;
  const uint32_t begin = tile * group.rows();
  for (uint32_t i = begin; i < group.count && i < begin + group.rows(); ++i) {
    const OrderedRow<T> own = group.ordered[i];
    low = own.start < low ? own.start : low;
    high = own.end > high ? own.end : high;
    front.see(Front<T>{Front<T>::key_of(own.score), own.row});
  }
  slots.low[slot] = low;
  slots.high[slot] = high;
  slots.set_first(slot, front);
  return front;
}

// Takes the selected row if the tile has it, and lowers the scores of the others; the warp calls it together.
// Returns the tile's next to take.
template <class T>
__device__ inline Front<T> lower_tile(const NmsGroup<T>& group, const TiledGroup<T>& tiled, uint32_t tile,
                                      const Suppression<T>& rule, const Selection<T>& selection) {
  Front<T> mine;
  const uint32_t begin = tile * tiled.rows(), end = begin + tiled.rows();
  for (uint32_t i = begin + threadIdx.x % kWarpSize; i < end && i < tiled.count; i += kWarpSize) {
    const OrderedRow<T> own = tiled.ordered[i];
    if (own.score == rule.kDropped) continue;
    T score = rule.kDropped;
    if (own.row == selection.row) {
      group.take(selection.turn, own.row, own.score);
    } else {
      score = rule.after(own.score, selection.interval, make_interval(own.start, own.end));
    }
    if (score != own.score) tiled.ordered[i].score = score;
    mine.see(Front<T>{Front<T>::key_of(score), own.row});
  }
  return WarpTeam{}.first(mine);
}

// Follows a selection through the tiles of this warp's threads. Returns the next to take of this thread's.
template <class T>
__device__ inline Front<T> lower_tiles(const NmsGroup<T>& group, const TiledGroup<T>& tiled,
                                       const Suppression<T>& rule, const Selection<T>& selection,
                                       TileSlots<T>& slots) {
  Front<T> mine;
  const uint32_t lane = threadIdx.x % kWarpSize;
  for (uint32_t round = 0; round < tiled.tiles(); round += kNmsThreads) {
    const uint32_t slot = round + threadIdx.x;
    Front<T> first = slots.first(slot);
    // A segment without length overlaps nothing, not even itself, but is taken all the same.
    const bool visited =
        !first.none() && (first.row == selection.row || slots.overlaps(slot, selection.interval));
    for (unsigned left = __ballot_sync(kWholeWarp, visited); left != 0; left &= left - 1u) {
      const uint32_t owner = static_cast<uint32_t>(__ffs(static_cast<int>(left)) - 1);
      const uint32_t tile = TiledGroup<T>::tile_of(round, threadIdx.x - lane + owner);
      const Front<T> next = lower_tile(group, tiled, tile, rule, selection);
      if (lane == owner) first = next;
    }
    if (visited) slots.set_first(slot, first);
    mine.see(first);
  }
  return mine;
}

// The sequential definition. `ordered` is scratch for the group's rows. Returns how many were taken.
template <class T>
__device__ inline int64_t suppress_tiles(const NmsGroup<T>& group, const NmsSettings<T>& settings,
                                         OrderedRow<T>* ordered, BlockTeam& team) {
  __shared__ TileSlots<T> slots;
  const Suppression<T>& rule = settings.rule;
  const uint32_t count = order_rows(group, rule, ordered);
  const TiledGroup<T> tiled(ordered, count);
  Front<T> mine;
  for (uint32_t round = 0; round < tiled.tiles(); round += kNmsThreads) {
    mine.see(open_slot(tiled, TiledGroup<T>::tile_of(round, threadIdx.x), round + threadIdx.x, slots));
  }
  // Where the first selection drops what it does not even overlap, there is no second.
  const int64_t limit = rule.drops_all() && settings.limit > 1 ? 1 : settings.limit;
  for (int64_t turn = 0; turn < limit; ++turn) {
    const Front<T> best = team.first(mine);
    if (best.none()) return turn;
    mine = lower_tiles(group, tiled, rule, Selection<T>{best.row, group.interval(best.row), turn}, slots);
  }
  return limit;
}

// Groups of more than `most` rows. ordered [N] is scratch.
template <class T>
__global__ void __launch_bounds__(kNmsThreads)
    suppress_large_kernel(NmsInput<T> input, NmsSettings<T> settings, const long long* __restrict__ faults,
                          int64_t most, OrderedRow<T>* __restrict__ ordered, NmsKept<T> kept) {
  if (!no_fault(faults)) return;
  BlockTeam team;
  for (int64_t g = blockIdx.x; g < input.groups; g += gridDim.x) {
    const NmsGroup<T> group{input, kept, input.offsets[g], input.offsets[g + 1]};
    if (group.size() <= most) continue;
    const int64_t selected = suppress_tiles(group, settings, ordered + group.begin, team);
    if (team.rank() == 0) kept.counts[g] = selected;
  }
}

}  // namespace wtal
