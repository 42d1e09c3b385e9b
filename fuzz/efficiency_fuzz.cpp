// Any bytes as a catalog of efficiencies: a Data error, or a table that its own text gives again.
#include "plan/efficiency.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  try {
    const auto table = plan::EfficiencyTable::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    const plan::Efficiency e = table.resolve("H100", "megatron-bridge", "");
    for (const double v : e.value) STOKER_CHECK(v >= 0 && !std::isnan(v));
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
