// One block: its threads as fibers, the order in which they run, barriers, and what is wrong when none can
// run.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdio>
#include <string>

#include "host_cuda/fiber.h"
#include "host_cuda/vectors.h"

namespace host_cuda {

constexpr int kWarp = 32;

// A position in the source, as faults print it.
struct Site {
  const char* file = nullptr;
  int line = 0;
  bool operator==(const Site& other) const { return line == other.line && file == other.file; }
  std::string text() const {
    const std::string path(file ? file : "?");
    return path.substr(path.rfind('/') + 1) + ":" + std::to_string(line);
  }
};
#define HOST_CUDA_SITE \
  ::host_cuda::Site { __FILE__, __LINE__ }

// What all lanes of a mask do together. The lane that comes last runs `complete` over everyone's record.
struct Meeting {
  const char* what = nullptr;
  Site site;
  unsigned mask = 0;
  void* record = nullptr;
  void (*complete)(void* const* records, unsigned mask) = nullptr;
};

enum class State { kRunnable, kAtBarrier, kMeeting, kDone };

struct Thread {
  Context context;
  uint3 index;
  State state;
  Site site;  // of the barrier or meeting it waits in
  Meeting meeting;
  int barrier_value;  // what it brings to __syncthreads_or, _and, _count
  bool started;
  void* fake_stack;  // AddressSanitizer's
};

// What the running thread sees of itself.
struct Here {
  uint3 thread, block;
  dim3 block_dim, grid_dim;
  unsigned id = 0;  // within the block; lane and warp follow from it
  bool in_kernel = false;
};
inline Here here;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
  uint32_t operator()() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<uint32_t>(state_ >> 32);
  }
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((uint64_t{(*this)()} * n) >> 32); }

 private:
  uint64_t state_;
};

class Block {
 public:
  using Body = void (*)(const void* kernel_and_arguments);

  // Runs one block to its end; throws what went wrong. shuffle seeds the order of its threads.
  void run(uint3 index, dim3 threads, Body body, const void* arguments, uint64_t seed) {
    body_ = body;
    arguments_ = arguments;
    random_ = Random(seed);
    fault_.clear();
    here.block = index;
    count_ = threads.x * threads.y * threads.z;
    threads_.resize(count_);
    alive_ = count_;
    waiting_ = 0;
    lanes_.assign((count_ + kWarp - 1) / kWarp, {});
    warps_.resize(lanes_.size());
    for (unsigned w = 0; w < warps_.size(); ++w) warps_[w] = w;
    for (unsigned i = 0; i < count_; ++i) {
      Thread& thread = threads_[i];
      thread.index = {i % threads.x, i / threads.x % threads.y, i / (threads.x * threads.y)};
      thread.state = State::kRunnable;
      thread.started = false;
      prepare(thread.context, stacks_[i], &Block::enter);
      lanes_[i / kWarp].exist |= 1u << i % kWarp;
    }
    for (Lanes& lanes : lanes_) lanes.runnable = lanes.exist;
    shuffle_warps();
    here.in_kernel = true;
    while (alive_ > 0 && fault_.empty()) {
      const int next = pick();
      if (next < 0) {
        fault_ = deadlock();
      } else {
        resume(static_cast<unsigned>(next));
      }
    }
    here.in_kernel = false;
    if (!fault_.empty()) throw std::runtime_error("host_cuda: " + fault_);
  }

  // __syncthreads and its kin: returns once every thread is here, with the sum of what they brought.
  int barrier(Site site, int value) {
    Thread& me = self();
    me.site = site;
    me.barrier_value = value;
    me.state = State::kAtBarrier;
    if (waiting_ == 0) {
      barrier_site_ = site;
    } else if (!(barrier_site_ == site)) {
      fail("threads of one block wait in different barriers, " + barrier_site_.text() + " and " +
           site.text());
    }
    if (++waiting_ < count_) {
      suspend();
    } else {
      open_barrier();
    }
    return barrier_total_;
  }

  // Meets the lanes of the mask that are still running. When it returns, `complete` has been run.
  void meet(const Meeting& meeting) {
    Thread& me = self();
    const unsigned lane = here.id % kWarp, warp = here.id / kWarp;
    me.meeting = meeting;
    me.site = meeting.site;
    me.state = State::kMeeting;
    if (!(meeting.mask >> lane & 1)) {
      fail(text_of(me) + " does not hold the calling lane");
    }
    if (meeting.mask & ~lanes_[warp].exist) fail(text_of(me) + " names lanes that the block does not have");
    lanes_[warp].meeting |= 1u << lane;
    if (!finish_meeting(warp, lane)) suspend();
  }

  // Lets others run first, if chance picks them.
  void pause() { switch_to_scheduler(); }

  // Ends the launch with a message that says which thread it was. Does not return.
  [[noreturn]] void fail(const std::string& what) {
    fault_ = what + " [" + name_of(here.id) + "]";
    suspend();
    std::abort();  // never resumed
  }

  static std::string hex(unsigned mask) {
    char text[16];
    snprintf(text, sizeof(text), "%08x", mask);
    return text;
  }

  uint32_t random() { return random_(); }
  const Thread& thread(unsigned i) const { return threads_[i]; }
  char* stack(unsigned i) { return stacks_[i]; }

 private:
  // Lanes of one warp, as masks.
  struct Lanes {
    unsigned exist = 0, runnable = 0, meeting = 0, done = 0;
  };

  Thread& self() { return threads_[here.id]; }

  // Runs the meeting in which `lane` waits if everyone is there. CUDA waits for the lanes that have not
  // exited.
  bool finish_meeting(unsigned warp, unsigned lane) {
    Lanes& lanes = lanes_[warp];
    Thread* const threads = &threads_[warp * kWarp];
    const Meeting& meeting = threads[lane].meeting;
    if (meeting.mask & ~(lanes.meeting | lanes.done)) return false;
    const unsigned present = meeting.mask & lanes.meeting;
    void* records[kWarp] = {};
    for (unsigned rest = present; rest; rest &= rest - 1) {
      const unsigned other = std::countr_zero(rest);
      const Thread& thread = threads[other];
      if (thread.meeting.mask != meeting.mask || thread.meeting.what != meeting.what) {
        fail(text_of(threads[lane]) + " meets lane " + std::to_string(other) + " in " + text_of(thread));
      }
      records[other] = thread.meeting.record;
    }
    meeting.complete(records, present);
    for (unsigned rest = present; rest; rest &= rest - 1) {
      threads[std::countr_zero(rest)].state = State::kRunnable;
    }
    lanes.meeting &= ~present;
    lanes.runnable |= present;
    return true;
  }

  static std::string text_of(const Thread& thread) {
    if (thread.state == State::kAtBarrier) return "__syncthreads at " + thread.site.text();
    return thread.meeting.what + (" at " + thread.site.text()) + " with mask " + hex(thread.meeting.mask);
  }

  std::string name_of(unsigned id) const {
    const uint3 t = threads_[id].index, b = here.block;
    auto triple = [](uint3 v) {
      return "(" + std::to_string(v.x) + ", " + std::to_string(v.y) + ", " + std::to_string(v.z) + ")";
    };
    return "block " + triple(b) + ", thread " + triple(t);
  }

  // Warps in an order that changes now and then, lanes at random: one warp may run as far ahead of the others
  // as the barriers let it, which is where a missing one shows.
  int pick() {
    if (random_.below(64) == 0) shuffle_warps();
    for (const unsigned warp : warps_) {
      if (const unsigned ready = lanes_[warp].runnable) {
        const int turn = static_cast<int>(random_() & 31);
        const int lane = (std::countr_zero(std::rotr(ready, turn)) + turn) & 31;
        return static_cast<int>(warp) * kWarp + lane;
      }
    }
    return -1;
  }

  void shuffle_warps() {
    for (size_t i = warps_.size(); i > 1; --i) {
      std::swap(warps_[i - 1], warps_[random_.below(static_cast<uint32_t>(i))]);
    }
  }

  void open_barrier() {
    barrier_total_ = 0;
    for (Thread& thread : threads_) {
      barrier_total_ += thread.barrier_value;
      thread.state = State::kRunnable;
    }
    for (Lanes& lanes : lanes_) lanes.runnable = lanes.exist;
    waiting_ = 0;
    shuffle_warps();
  }

  std::string deadlock() const {
    std::string text = "deadlock in " + name_of(0).substr(0, name_of(0).find(", thread")) + ":";
    unsigned done = 0, told = 0;
    for (unsigned i = 0; i < count_; ++i) {
      const Thread& thread = threads_[i];
      if (thread.state == State::kDone) {
        ++done;
        continue;
      }
      // One line for each place where threads wait, naming the first of them.
      bool first = true;
      unsigned same = 0;
      for (unsigned j = 0; j < count_; ++j) {
        if (threads_[j].state == thread.state && threads_[j].site == thread.site) {
          first = first && j >= i;
          ++same;
        }
      }
      if (!first || ++told > 8) continue;
      text += "\n  " + std::to_string(same) + " of " + std::to_string(count_) + " threads wait in " +
              text_of(thread) + ", the first is " + name_of(i);
    }
    if (done > 0) text += "\n  " + std::to_string(done) + " threads have ended";
    for (unsigned i = 0; i < count_ && done > 0; ++i) {
      if (threads_[i].state == State::kDone) {
        text += ", the first is " + name_of(i);
        break;
      }
    }
    return text;
  }

  // ---- switching
  // ------------------------------------------------------------------------------------------------
  void resume(unsigned id) {
    Thread& thread = threads_[id];
    here.id = id;
    here.thread = thread.index;
#ifdef __SANITIZE_ADDRESS__
    void* mine = nullptr;
    __sanitizer_start_switch_fiber(&mine, stacks_[id], kStackBytes);
    switch_stack(&scheduler_, thread.context);
    __sanitizer_finish_switch_fiber(mine, nullptr, nullptr);
#else
    switch_stack(&scheduler_, thread.context);
#endif
  }

  // Back to the scheduler until this thread is picked again.
  void suspend() {
    lanes_[here.id / kWarp].runnable &= ~(1u << here.id % kWarp);
    switch_to_scheduler();
  }

  void switch_to_scheduler() {
    Thread& me = self();
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(me.state == State::kDone ? nullptr : &me.fake_stack, scheduler_stack_,
                                   scheduler_stack_bytes_);
    switch_stack(&me.context, scheduler_);
    __sanitizer_finish_switch_fiber(me.fake_stack, nullptr, nullptr);
#else
    switch_stack(&me.context, scheduler_);
#endif
  }

  static void enter();

  // The running thread has come to its end. Others of its warp may have waited for nobody but it.
  void end() {
    self().state = State::kDone;
    --alive_;
    const unsigned warp = here.id / kWarp;
    Lanes& lanes = lanes_[warp];
    lanes.done |= 1u << here.id % kWarp;
    for (unsigned rest = lanes.meeting; rest; rest &= rest - 1) {
      const unsigned lane = std::countr_zero(rest);
      if (lanes.meeting >> lane & 1) finish_meeting(warp, lane);
    }
    suspend();
  }

  Body body_ = nullptr;
  const void* arguments_ = nullptr;
  Random random_{0};
  std::string fault_;
  unsigned count_ = 0, alive_ = 0, waiting_ = 0;
  Site barrier_site_;
  int barrier_total_ = 0;
  std::vector<Thread> threads_;
  std::vector<Lanes> lanes_;     // of each warp
  std::vector<unsigned> warps_;  // in the order in which they get a chance
  Stacks stacks_;
  Context scheduler_{};
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_stack_bytes_ = 0;
};
inline Block block;

inline void Block::enter() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack_, &block.scheduler_stack_bytes_);
#endif
  block.body_(block.arguments_);
  block.end();
  std::abort();  // never resumed
}

}  // namespace host_cuda

#define threadIdx (::host_cuda::here.thread)
#define blockIdx (::host_cuda::here.block)
#define blockDim (::host_cuda::here.block_dim)
#define gridDim (::host_cuda::here.grid_dim)
#define warpSize 32

#define __syncthreads() ((void)::host_cuda::block.barrier(HOST_CUDA_SITE, 0))
#define __syncthreads_count(p) (::host_cuda::block.barrier(HOST_CUDA_SITE, (p) ? 1 : 0))
#define __syncthreads_or(p) (::host_cuda::block.barrier(HOST_CUDA_SITE, (p) ? 1 : 0) > 0)
#define __syncthreads_and(p) (::host_cuda::block.barrier(HOST_CUDA_SITE, (p) ? 0 : 1) == 0)
