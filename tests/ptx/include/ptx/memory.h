// Which global memory a kernel may touch.
#pragma once
#include <cstdint>
#include <string>

namespace ptx {

// Ends the launch with a message. Does not return.
[[noreturn]] void fail(const std::string& what, int line);

// Called before each launch.
void memory_begins();

// Fails unless all bytes are known memory.
void range_of(uint64_t address, uint32_t bytes, int line);

}  // namespace ptx
