// base/cpu_features.h
// What this processor (and operating system) can run; asked once. STOKER_ISA=baseline|avx2|avx512|avx512bf16
// caps it, so that a test can force a slower path.
#pragma once
#include <string>

namespace stoker {

enum class Isa { kBaseline, kAvx2, kAvx512, kAvx512Bf16 };

Isa cpu_isa();  // the best usable one: each includes those before it
bool cpu_has(Isa isa);
std::string cpu_name();  // as the kernel prints it

}  // namespace stoker
