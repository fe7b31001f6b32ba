// Shared memory, static and dynamic: filled with NaN before each block, since a block may find anything
// there.
//
// Static: one block runs at a time on one thread, so `static thread_local` gives it the right life, and puts
// all of it into the module's thread-local segment, which is how it is found and filled. (AddressSanitizer
// guards ordinary static variables only; there they are that, and keep what the block before left in them.)
#pragma once
#include <link.h>

#include "host_cuda/block.h"

#ifdef __SANITIZE_ADDRESS__
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

namespace host_cuda {

constexpr int kPoison = 0xff;                    // NaN in every floating-point type
constexpr size_t kMostDynamicShared = 99 << 10;  // of an sm_86 block
constexpr size_t kCanary = 64;

struct Range {
  char* first = nullptr;
  size_t bytes = 0;
  bool holds(const void* address, size_t count) const {
    const auto* at = static_cast<const char*>(address);
    return at >= first && at + count <= first + bytes;
  }
};

#ifndef __SANITIZE_ADDRESS__
inline thread_local char shared_marker = 0;

// The calling thread's copy of this module's thread-local segment.
inline Range static_shared() {
  Range found;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          if (info->dlpi_phdr[i].p_type != PT_TLS || !info->dlpi_tls_data) continue;
          const Range range{static_cast<char*>(info->dlpi_tls_data), info->dlpi_phdr[i].p_memsz};
          if (range.holds(&shared_marker, 1)) *static_cast<Range*>(out) = range;
        }
        return 0;
      },
      &found);
  return found;
}
#else
inline Range static_shared() { return {}; }
#endif

// The dynamic shared memory of a launch, with bytes behind it that nobody may change.
class DynamicShared {
 public:
  explicit DynamicShared(size_t bytes) : bytes_(bytes) {
    // Where AddressSanitizer watches, the allocation must end where the memory does.
    const size_t size = kWithCanary ? bytes + kCanary : bytes;
    if (posix_memalign(reinterpret_cast<void**>(&memory_), 128, size) != 0) memory_ = nullptr;
    if (!memory_ && size > 0) throw std::runtime_error("host_cuda: no memory for dynamic shared memory");
  }
  ~DynamicShared() { std::free(memory_); }
  DynamicShared(const DynamicShared&) = delete;
  DynamicShared& operator=(const DynamicShared&) = delete;

  void poison() {
    if (bytes_ > 0) std::memset(memory_, kPoison, bytes_);
    if (kWithCanary) std::memset(memory_ + bytes_, kCanaryByte, kCanary);
  }
  bool overrun() const {
    for (size_t i = 0; kWithCanary && i < kCanary; ++i) {
      if (memory_[bytes_ + i] != kCanaryByte) return true;
    }
    return false;
  }
  Range range() const { return {memory_, bytes_}; }

 private:
#ifdef __SANITIZE_ADDRESS__
  static constexpr bool kWithCanary = false;
#else
  static constexpr bool kWithCanary = true;
#endif
  static constexpr char kCanaryByte = 0x5a;
  char* memory_ = nullptr;
  size_t bytes_;
};

inline Range dynamic_range, static_range;  // of the launch under way

inline void* dynamic_shared() {
  if (dynamic_range.bytes == 0) block.fail("dynamic shared memory is used, but the launch asked for none");
  return dynamic_range.first;
}

// Whether all bytes are shared memory. Static shared memory is not known where AddressSanitizer watches it.
inline bool is_shared(const void* address, size_t bytes) {
  return dynamic_range.holds(address, bytes) || static_range.holds(address, bytes) || !static_range.first;
}

}  // namespace host_cuda
