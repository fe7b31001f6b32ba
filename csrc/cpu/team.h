// Threads that share the indices of many short loops. Each loop of torch's thread pool synchronises all
// threads, and if other programs use the cores, each synchronisation waits for a thread that is not running.
// Here no thread waits for a thread that has not taken an index: the caller processes the remaining indices
// itself.
//
// Each member prefers the same part of the indices in every loop, so that the data of an index stay in the
// cache of one core. A member that has finished its part waits for a moment, then takes the others' last
// indices.
#pragma once
#include <atomic>
#include <bit>
#include <cstdint>
#include <exception>
#include <thread>
#include <utility>

namespace wtal {

class Team {
 public:
  static constexpr int64_t kMost = 16;  // maximum number of indices in a loop

  // members: the caller, which is member 0, and all threads that may help.
  explicit Team(int64_t members) : members_(members) {}

  // Calls function(i) for all i below count, on the caller and on the available helpers. Only one thread may
  // call it. If calls throw, the others are made nevertheless, and one of the exceptions is thrown at the
  // end.
  template <class Function>
  void each(int64_t count, const Function& function) {
    if (count == 1) return function(0);
    context_ = &function;
    call_ = [](const void* context, int64_t i) { (*static_cast<const Function*>(context))(i); };
    finished_.store(0, std::memory_order_relaxed);
    const uint64_t loop = (ticket_.load(std::memory_order_relaxed) >> 2 * kMost) + 1, all = (1U << count) - 1;
    ticket_.store(loop << 2 * kMost | all << kMost | all, std::memory_order_release);
    for (int turn = 0; finished_.load(std::memory_order_acquire) < count;) work(0, turn);
    if (failed_.load(std::memory_order_relaxed)) {
      failed_.store(false, std::memory_order_relaxed);
      std::rethrow_exception(std::exchange(error_, nullptr));
    }
  }

  // The loop of a helper thread, until end().
  void help(int64_t member) {
    for (int turn = 0; !ended_.load(std::memory_order_acquire);) work(member, turn);
  }

  void end() { ended_.store(true, std::memory_order_release); }

 private:
  // Processes one index, or waits. turn: how often it has waited since its last own index.
  void work(int64_t member, int& turn) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    int index;
    do {
      const int64_t count = std::popcount(ticket >> kMost & kIndices);
      const uint64_t left = ticket & kIndices,
                     own = left & below(part(count, member + 1)) & ~below(part(count, member));
      if (own) {
        index = std::countr_zero(own);
        turn = 0;
      } else if (left && turn >= kPatience) {
        index = 63 - std::countl_zero(left);
      } else {
        return wait(turn);
      }
    } while (!ticket_.compare_exchange_weak(ticket, ticket & ~(1ULL << index), std::memory_order_acq_rel,
                                            std::memory_order_acquire));
    // The loop cannot end before this index is finished, so its function still exists.
    try {
      call_(context_, index);
    } catch (...) {  // e.g. no memory; it belongs to the caller of each()
      if (!failed_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
    }
    finished_.fetch_add(1, std::memory_order_release);
  }

  // The first index of a member's part.
  int64_t part(int64_t count, int64_t member) const { return (count * member + members_ - 1) / members_; }
  static uint64_t below(int64_t index) { return (1ULL << index) - 1; }

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

  // Turns until it lets other threads run (about 50 us), and until it takes the others' indices.
  static constexpr int kTurns = 1000, kPatience = 100;
  static constexpr uint64_t kIndices = (1U << kMost) - 1;

  const int64_t members_;
  // The number of the loop, then a bit for each of its indices, then a bit for each that is left.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> finished_{0};
  std::atomic<bool> ended_{false}, failed_{false};
  std::exception_ptr error_;  // written by the first call that throws, read when all calls are finished
  const void* context_ = nullptr;
  void (*call_)(const void*, int64_t) = nullptr;
};

}  // namespace wtal
