// Fibers: stacks of their own, and a switch between them that costs a few nanoseconds. swapcontext makes a
// system call for the signal mask each time, which is all the time there is when a warp shuffles.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace host_cuda {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = 256 << 10;  // its frames are padded
#elif defined(HOST_CUDA_STACK_BYTES)
constexpr size_t kStackBytes = HOST_CUDA_STACK_BYTES;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

#ifdef __x86_64__
using Context = void*;  // the stack pointer; everything else that a call preserves lies on the stack

// Saves where we are in *from and goes on where `to` was saved. The arguments lie in rdi and rsi.
__attribute__((naked, noipa, no_sanitize("address", "undefined"))) inline void switch_stack(
    [[maybe_unused]] Context* from, [[maybe_unused]] Context to) {
  asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}

inline void prepare(Context& context, char* stack, void (*entry)()) {
  auto* top = reinterpret_cast<void**>(stack + kStackBytes);
  *--top = nullptr;  // keeps the stack aligned as after a call, and ends back traces
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context = top;
}
#else
using Context = ucontext_t;

inline void switch_stack(Context* from, Context& to) { swapcontext(from, &to); }

inline void prepare(Context& context, char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

// Stacks for the threads of one block, each with a page below it that must not be touched. Kept between
// launches.
class Stacks {
 public:
  char* operator[](size_t i) {
    while (stacks_.size() <= i) {
      const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
      void* memory = mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
        throw std::runtime_error("host_cuda: no memory for the stack of a thread");
      }
      stacks_.push_back(static_cast<char*>(memory) + page);
    }
    return stacks_[i];
  }

 private:
  std::vector<char*> stacks_;
};

}  // namespace host_cuda
