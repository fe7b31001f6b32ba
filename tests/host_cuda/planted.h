// What the files of the shim's small kernels share.
#pragma once
#include <functional>
#include <map>
#include <stdexcept>
#include <string>

#include "cuda/ptx.cuh"

namespace planted {

using Cases = std::map<std::string, std::function<void()>>;

inline void expect(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error("wrong: " + what);
}
#define EXPECT(condition) expect(condition, #condition)

}  // namespace planted
