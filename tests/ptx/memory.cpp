// Which global memory kernels may touch: the storages of the op's arguments, and what the op allocates while
// it runs. torch's CPU allocator is wrapped for that time, and everything it gives is noted.
#include "ptx/memory.h"

#include <map>
#include <mutex>

#include "ptx/runtime.h"

#ifdef PTX_WITH_TORCH
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#endif

namespace ptx {

namespace {
struct Block {
  uint64_t first = 1, end = 0;
};
std::map<uint64_t, uint64_t> ranges;  // first byte -> end
std::mutex ranges_change;
Block found_lately[64];

void note(const void* first, uint64_t bytes) {
  const std::lock_guard lock(ranges_change);
  uint64_t& end = ranges[reinterpret_cast<uint64_t>(first)];
  end = std::max(end, reinterpret_cast<uint64_t>(first) + bytes);
}
}  // namespace

void memory_begins() {
  for (Block& block : found_lately) block = {};
}

void range_of(uint64_t address, uint32_t bytes, int line) {
  Block& lately = found_lately[address >> 10 & 63];
  if (address >= lately.first && address + bytes <= lately.end) return;
  {
    const std::lock_guard lock(ranges_change);
    auto after = ranges.upper_bound(address);
    if (after != ranges.begin()) {
      --after;
      if (address + bytes <= after->second) {
        lately = {after->first, after->second};
        return;
      }
    }
  }
  fail("a global access of " + std::to_string(bytes) + " bytes lies outside of every tensor", line);
}

char* global(uint64_t address, uint32_t bytes, int line) {
  if (address % bytes != 0) {
    fail("a global access of " + std::to_string(bytes) + " bytes is not aligned to them", line);
  }
  range_of(address, bytes, line);
  return reinterpret_cast<char*>(address);
}

#ifdef PTX_WITH_TORCH
namespace {
void forget(const void* first) {
  const std::lock_guard lock(ranges_change);
  ranges.erase(reinterpret_cast<uint64_t>(first));
}

class Noting : public c10::Allocator {
 public:
  explicit Noting(c10::Allocator* under) : under_(under) { deleter_ = under->raw_deleter(); }
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr data = under_->allocate(bytes);
    void* const memory = data.get();
    note(memory, bytes);
    const c10::Device device = data.device();
    return {memory, data.release_context(), &Noting::free, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Noting::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static void free(void* memory) {
    forget(memory);
    deleter_(memory);
  }
  c10::Allocator* under_;
  static inline c10::DeleterFnPtr deleter_ = nullptr;
};
}  // namespace
#endif

}  // namespace ptx

extern "C" {
__attribute__((visibility("default"))) void ptx_note(const void* first, uint64_t bytes) {
  ptx::note(first, bytes);
}
__attribute__((visibility("default"))) void ptx_forget_all() {
  const std::lock_guard lock(ptx::ranges_change);
  ptx::ranges.clear();
}
#ifdef PTX_WITH_TORCH
// While it is on, every allocation of torch on the CPU is noted.
__attribute__((visibility("default"))) void ptx_note_allocations(bool on) {
  static c10::Allocator* const under = c10::GetCPUAllocator();
  static ptx::Noting noting(under);
  c10::SetCPUAllocator(on ? &noting : under);
}
#endif
}
