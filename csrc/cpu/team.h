// Threads that share the indices of many short loops. Each loop of torch's thread pool synchronises all
// threads, and if other programs use the cores, each synchronisation waits for a thread that is not running.
// Here no thread waits for a thread that has not taken an index: the caller processes the remaining indices
// itself.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>

namespace wtal {

class Team {
 public:
  static constexpr int64_t kMost = 255;  // maximum number of indices in a loop

  // Calls function(i) for all i below count, on the caller and on the available helpers. Only one thread may
  // call it.
  template <class Function>
  void each(int64_t count, const Function& function) {
    context_ = &function;
    call_ = [](const void* context, int64_t i) { (*static_cast<const Function*>(context))(i); };
    finished_.store(0, std::memory_order_relaxed);
    const uint64_t loop = (ticket_.load(std::memory_order_relaxed) >> 16) + 1;
    ticket_.store(loop << 16 | static_cast<uint64_t>(count) << 8, std::memory_order_release);
    while (take()) {
    }
    for (int turn = 0; finished_.load(std::memory_order_acquire) < count;) wait(turn);
  }

  // The loop of a helper thread, until end().
  void help() {
    for (int turn = 0; !ended_.load(std::memory_order_acquire);) {
      if (take()) {
        turn = 0;
      } else {
        wait(turn);
      }
    }
  }

  void end() { ended_.store(true, std::memory_order_release); }

 private:
  // Processes one index, if one is left.
  bool take() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    do {
      if ((ticket & 0xff) >= (ticket >> 8 & 0xff)) return false;
    } while (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                            std::memory_order_acquire));
    // The loop cannot end before this index is finished, so its function still exists.
    call_(context_, static_cast<int64_t>(ticket & 0xff));
    finished_.fetch_add(1, std::memory_order_release);
    return true;
  }

  static void wait(int& turn) {
    if (++turn > kTurns) {
      turn = kTurns;
      std::this_thread::yield();
    } else {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
  }

  static constexpr int kTurns = 1000;  // about 50 us

  alignas(64) std::atomic<uint64_t> ticket_{
      0};  // number of the loop, 8 bits for its count, 8 bits for the next index
  alignas(64) std::atomic<int64_t> finished_{0};
  std::atomic<bool> ended_{false};
  const void* context_ = nullptr;
  void (*call_)(const void*, int64_t) = nullptr;
};

}  // namespace wtal
