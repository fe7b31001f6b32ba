// The registry of translated entries, their launch, and the instructions that need the shim's fibers: threads
// of a block meet in tests/host_cuda's barriers, shuffles, ldmatrix and mma.
#include "ptx/runtime.h"

#include <dlfcn.h>

#include <cfenv>
#include <map>
#include <string>

#include "host_cuda.h"
#include "ptx/launch.h"
#include "ptx/memory.h"

namespace ptx {

namespace {
std::map<std::string, Registered>& entries() {
  static std::map<std::string, Registered> all;
  return all;
}
const Registered* current = nullptr;
const char* const* current_arguments = nullptr;
uint64_t seed = 1;

::host_cuda::Site site(int line) { return {current->file, line}; }
}  // namespace

Registration::Registration(const char* name, const Registered& entry) { entries()[name] = entry; }

void fail(const std::string& what, int line) {
  ::host_cuda::block.fail("PTX: " + what + " at " + current->file + ":" + std::to_string(line));
}

void launch_registered(const Registered& entry, dim3 grid, dim3 threads, size_t dynamic_bytes,
                       Arguments arguments) {
  size_t static_bytes = 0, expected = 0;
  for (const Array& array : entry.arrays) static_bytes += array.bytes;
  while (entry.parameters[expected] != 0) ++expected;
  bool same = expected == arguments.count;
  for (size_t i = 0; same && i < expected; ++i) same = entry.parameters[i] == arguments.bytes[i];
  if (!same) throw std::runtime_error("PTX: the arguments are not the entry's parameters");
  ::host_cuda::check_launch(grid, threads, static_bytes + dynamic_bytes);
  current = &entry;
  current_arguments = arguments.values;
  memory_begins();
  ::host_cuda::run_grid(
      grid, threads, entry.dynamic_begin + dynamic_bytes,
      [](const void*) { current->function(current_arguments); }, nullptr);
}

void launch_entry(const void* kernel, dim3 grid, dim3 threads, size_t dynamic_bytes, Arguments arguments) {
  Dl_info info{};
  if (!dladdr(kernel, &info) || !info.dli_sname) throw std::runtime_error("PTX: a kernel without a name");
  const auto found = entries().find(info.dli_sname);
  if (found == entries().end())
    throw std::runtime_error(std::string("PTX: no entry ") + info.dli_sname + " was translated");
  launch_registered(found->second, grid, threads, dynamic_bytes, arguments);
}

Special special() {
  const ::host_cuda::Here& here = ::host_cuda::here;
  return {{here.thread.x, here.thread.y, here.thread.z},
          {here.block_dim.x, here.block_dim.y, here.block_dim.z},
          {here.block.x, here.block.y, here.block.z},
          {here.grid_dim.x, here.grid_dim.y, here.grid_dim.z}};
}

// ---- memory that belongs to the launch
// --------------------------------------------------------------------
char* shared(uint32_t address, uint32_t bytes, int line) {
  const ::host_cuda::Range& all = ::host_cuda::dynamic_range;
  if (address % bytes != 0) {
    fail("a shared access of " + std::to_string(bytes) + " bytes is not aligned to them", line);
  }
  const uint64_t end = uint64_t{address} + bytes;
  if (address >= current->dynamic_begin && end <= all.bytes) return all.first + address;
  for (const Array& array : current->arrays) {
    if (address >= array.begin && end <= uint64_t{array.begin} + array.bytes) return all.first + address;
  }
  fail("a shared access of " + std::to_string(bytes) + " bytes lies outside of the block's arrays", line);
}

const char* parameter(uint64_t address, uint32_t bytes, int line) {
  for (size_t i = 0; current->parameters[i] != 0; ++i) {
    const auto first = reinterpret_cast<uint64_t>(current_arguments[i]);
    if (address >= first && address + bytes <= first + current->parameters[i]) {
      if ((address - first) % bytes == 0) return reinterpret_cast<const char*>(address);
      fail("a misaligned access to a parameter", line);
    }
  }
  fail("an access outside of the parameters", line);
}

// ---- what threads do together
// -----------------------------------------------------------------------------
// All barriers are one to the hardware, which counts arrivals at barrier 0: a compiler may have doubled it.
void barrier(int) { ::host_cuda::block.barrier({"bar.sync", 0}, 0); }

uint32_t shuffle(int mode, uint32_t a, uint32_t b, uint32_t c, uint32_t mask, bool& valid, int line) {
  const int lane = static_cast<int>(::host_cuda::lane_id());
  const int segment = c >> 8 & 31, clamp = c & 31, delta = b & 31;
  const int first = lane & segment, last = first | (clamp & ~segment);
  const int source = mode == 0   ? lane - delta
                     : mode == 1 ? lane + delta
                     : mode == 2 ? lane ^ delta
                                 : first | (delta & ~segment);
  valid = mode == 0 ? source >= last : source <= last;
  return ::host_cuda::shuffle("shfl.sync", site(line), mask, a, valid ? source : lane);
}

uint32_t ballot(bool a, uint32_t mask, int line) {
  return ::host_cuda::vote("vote.sync.ballot", site(line), mask, a).ballot;
}
uint32_t reduce_min(uint32_t a, uint32_t mask, int line) {
  return ::host_cuda::reduce("redux.sync.min", site(line), mask, a, ::host_cuda::Least{});
}
uint32_t reduce_max(uint32_t a, uint32_t mask, int line) {
  return ::host_cuda::reduce("redux.sync.max", site(line), mask, a, ::host_cuda::Greatest{});
}

template <int kMatrices, bool kTransposed>
void ldmatrix(uint32_t* to, uint32_t address, int line) {
  const bool names_a_row = ::host_cuda::lane_id() < 8 * kMatrices;
  const char* row = names_a_row ? shared(address, 16, line) : nullptr;
  ::host_cuda::ldmatrix<kMatrices, kTransposed>(site(line), {to, row});
}
template void ldmatrix<1, false>(uint32_t*, uint32_t, int);
template void ldmatrix<2, false>(uint32_t*, uint32_t, int);
template void ldmatrix<4, false>(uint32_t*, uint32_t, int);
template void ldmatrix<1, true>(uint32_t*, uint32_t, int);
template void ldmatrix<2, true>(uint32_t*, uint32_t, int);
template void ldmatrix<4, true>(uint32_t*, uint32_t, int);

void mma_f16(float* d, const uint32_t* a, const uint32_t* b, const float* c, int line) {
  ::host_cuda::mma_m16n8k16<__half>(site(line), {d, a, b, c});
}
void mma_bf16(float* d, const uint32_t* a, const uint32_t* b, const float* c, int line) {
  ::host_cuda::mma_m16n8k16<__nv_bfloat16>(site(line), {d, a, b, c});
}
void mma_tf32(float* d, const uint32_t* a, const uint32_t* b, const float* c, int line) {
  ::host_cuda::mma_m16n8k8_tf32(site(line), {d, a, b, c});
}

void cp_async(uint32_t to, uint64_t from, uint32_t bytes, uint32_t valid, int line) {
  if (valid > bytes) fail("cp.async reads more bytes than it writes", line);
  if (from % bytes != 0) fail("cp.async reads from a misaligned address", line);
  if (valid > 0) range_of(from, valid, line);
  ::host_cuda::async_copy(shared(to, bytes, line), reinterpret_cast<const void*>(from), bytes, valid);
}
void cp_async_commit() { ::host_cuda::async_commit(); }
void cp_async_wait(uint32_t pending) { ::host_cuda::async_wait(pending); }

int64_t atomic_min(uint64_t address, int64_t value, int line) {
  return ::atomicMin(reinterpret_cast<long long*>(global(address, 8, line)), static_cast<long long>(value));
}

uint32_t atomic_add(uint32_t address, uint32_t value, int line) {
  return ::atomicAdd(reinterpret_cast<unsigned*>(shared(address, 4, line)), value);
}

// ---- arithmetic
// -------------------------------------------------------------------------------------------
float fma_down(float a, float b, float c) {
  const int before = std::fegetround();
  std::fesetround(FE_DOWNWARD);
  const volatile float x = a, y = b, z = c;
  const volatile float result = std::fma(x, y, z);
  std::fesetround(before);
  return result;
}

// PTX promises 2 units in the last place, and 1 for 0. A card gives one argument one result, and so does
// this: what lies within the promise is chosen by the argument and the seed.
float ex2_approx(float x, bool flush_subnormal) {
  constexpr float kLeastNormal = 0x1p-126f;
  if (std::fabs(x) < kLeastNormal) return 1.0f;
  const double exact = std::exp2(static_cast<double>(x));
  auto y = static_cast<float>(exact);
  if (std::isfinite(y) && y > 0) {
    const uint64_t mixed = (std::bit_cast<uint32_t>(x) + seed) * 0x9e3779b97f4a7c15u;
    int steps = static_cast<int>((mixed ^ mixed >> 32) % 5) - 2;
    const uint32_t bits = std::bit_cast<uint32_t>(y);
    const double unit = std::ldexp(1.0, std::ilogb(std::fmax(y, kLeastNormal)) - 23);
    for (; steps != 0; steps -= steps > 0 ? 1 : -1) {
      const auto moved = std::bit_cast<float>(bits + static_cast<uint32_t>(steps));
      if (bits > 2 && std::isfinite(moved) && std::fabs(moved - exact) <= 2 * unit) {
        y = moved;
        break;
      }
    }
  }
  return flush_subnormal && y < kLeastNormal ? 0.0f : y;
}

uint16_t to_f16(float x) { return ::host_cuda::HalfFormat::encode(static_cast<double>(x)); }
uint16_t to_bf16(float x) { return ::host_cuda::BFloat16Format::encode(static_cast<double>(x)); }
float from_f16(uint16_t bits) { return ::host_cuda::HalfFormat::decode(bits); }
float from_bf16(uint16_t bits) { return ::host_cuda::BFloat16Format::decode(bits); }

}  // namespace ptx

// ---- for ctypes
// -------------------------------------------------------------------------------------------
extern "C" {
__attribute__((visibility("default"))) void ptx_seed(uint64_t seed) {
  ptx::seed = seed;
  ::host_cuda::shuffle_seed = seed;
}
__attribute__((visibility("default"))) long ptx_entries() { return static_cast<long>(ptx::entries().size()); }
// Launches an entry by its name, with 8-byte arguments. Returns what was wrong; empty if nothing was.
__attribute__((visibility("default"))) const char* ptx_launch(const char* name, uint32_t blocks,
                                                              uint32_t threads, uint32_t dynamic_bytes,
                                                              const uint64_t* arguments, uint32_t count) {
  static std::string message;
  message.clear();
  try {
    const std::vector<uint32_t> bytes(count, 8);
    std::vector<const char*> values;
    for (uint32_t i = 0; i < count; ++i) values.push_back(reinterpret_cast<const char*>(&arguments[i]));
    ptx::launch_registered(ptx::entries().at(name), blocks, threads, dynamic_bytes,
                           {values.data(), bytes.data(), count});
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.c_str();
}
}
