// cp.async at its slowest: the destination is NaN from the moment the copy is asked for, and what was asked
// for arrives, read from its source only then, at the last moment that the thread's own wait_group allows.
#pragma once
#include <deque>
#include <vector>

#include "host_cuda/memory.h"

namespace host_cuda {

struct AsyncCopy {
  char* to;
  const char* from;
  size_t bytes, valid;  // the rest is filled with zeros

  void land() const {
    std::memcpy(to, from, valid);
    std::memset(to + valid, 0, bytes - valid);
  }
};

// The copies of one thread: those not yet committed, and committed groups, oldest first.
struct AsyncCopies {
  std::vector<AsyncCopy> open;
  std::deque<std::vector<AsyncCopy>> groups;
};
inline std::vector<AsyncCopies> async_copies;  // of the block's threads

// Called before each block.
inline void forget_async_copies() { async_copies.clear(); }

inline AsyncCopies& my_async_copies() {
  if (async_copies.size() <= here.id) async_copies.resize(here.id + 1);
  return async_copies[here.id];
}

// bytes: 4, 8 or 16. Of them, `valid` are read from global memory.
inline void async_copy(void* shared, const void* global, size_t bytes, size_t valid) {
  if (reinterpret_cast<uintptr_t>(shared) % bytes || reinterpret_cast<uintptr_t>(global) % bytes) {
    block.fail("cp.async of " + std::to_string(bytes) +
               " bytes between addresses that are not aligned to them");
  }
  if (!is_shared(shared, bytes)) block.fail("cp.async writes outside of shared memory");
  if (valid > bytes) block.fail("cp.async reads more bytes than it writes");
  std::memset(shared, kPoison, bytes);
  my_async_copies().open.push_back(
      {static_cast<char*>(shared), static_cast<const char*>(global), bytes, valid});
}

inline void async_commit() {
  AsyncCopies& mine = my_async_copies();
  mine.groups.push_back(std::move(mine.open));
  mine.open.clear();
}

// Waits until at most `pending` of the latest groups are under way.
inline void async_wait(size_t pending) {
  AsyncCopies& mine = my_async_copies();
  for (; mine.groups.size() > pending; mine.groups.pop_front()) {
    for (const AsyncCopy& copy : mine.groups.front()) copy.land();
  }
}

}  // namespace host_cuda
