#include "base/cpu_features.h"

#include <cpuid.h>
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string_view>

namespace stoker {
namespace {
bool has_avx512bf16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
}

Isa detect() {
  __builtin_cpu_init();
  Isa isa = Isa::kBaseline;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    isa = Isa::kAvx2;
  if (isa == Isa::kAvx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    isa = has_avx512bf16() ? Isa::kAvx512Bf16 : Isa::kAvx512;
  if (const char* cap = std::getenv("STOKER_ISA")) {
    const std::string_view name = cap;
    if (name == "baseline") isa = Isa::kBaseline;
    if (name == "avx2") isa = std::min(isa, Isa::kAvx2);
    if (name == "avx512") isa = std::min(isa, Isa::kAvx512);
  }
  return isa;
}
}  // namespace

Isa cpu_isa() {
  static const Isa isa = detect();
  return isa;
}
bool cpu_has(Isa isa) { return cpu_isa() >= isa; }

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

}  // namespace stoker
