// Launches the translated entry in the place of the kernel that the host compiler made, found by its name.
#pragma once
#include <array>
#include <tuple>
#include <utility>

#include "host_cuda.h"

namespace ptx {

struct Arguments {
  const char* const* values;
  const uint32_t* bytes;
  size_t count;
};
void launch_entry(const void* kernel, dim3 grid, dim3 threads, size_t dynamic_bytes, Arguments arguments);

template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t dynamic_bytes,
            std::type_identity_t<Parameters>... arguments) {
  const std::array<const char*, sizeof...(Parameters)> values{reinterpret_cast<const char*>(&arguments)...};
  const std::array<uint32_t, sizeof...(Parameters)> bytes{static_cast<uint32_t>(sizeof(arguments))...};
  launch_entry(reinterpret_cast<const void*>(kernel), grid, threads, dynamic_bytes,
               {values.data(), bytes.data(), values.size()});
}

}  // namespace ptx

#define HOST_CUDA_OPS wtal_on_ptx
#define HOST_CUDA_LAUNCH ::ptx::launch
