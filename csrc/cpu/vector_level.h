// The levels of x86 vectors that kernels are compiled for, and the one that this machine uses.
#pragma once
#include <cstdlib>
#include <string_view>

// Clang does not take all of these targets, so its builds have the baseline alone.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WTAL_X86_LEVELS
#endif

namespace wtal {

enum class VectorLevel { kBaseline, kAvx2, kAvx512 };  // SSE2, x86-64-v3, x86-64-v4

// The widest level of the machine, limited by ATEN_CPU_CAPABILITY (default, avx2 or avx512) as in torch.
inline VectorLevel vector_level() {
  static const VectorLevel chosen = [] {
#ifdef WTAL_X86_LEVELS
    const char* asked = std::getenv("ATEN_CPU_CAPABILITY");
    const std::string_view limit = asked ? asked : "";
    if (limit == "default") return VectorLevel::kBaseline;
    if (limit != "avx2" && __builtin_cpu_supports("x86-64-v4")) return VectorLevel::kAvx512;
    if (__builtin_cpu_supports("x86-64-v3")) return VectorLevel::kAvx2;
#endif
    return VectorLevel::kBaseline;
  }();
  return chosen;
}

}  // namespace wtal
