// Any bytes as a plan file: a Usage or Data error that says where, or a request whose numbers can be planned with.
#include <cmath>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "plan/plan_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  // a name may lead to any file on this machine: only plans without one
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (text.find(".json") != text.npos || text.find(".csv") != text.npos) return 0;
  try {
    const plan::PlanRequest r = plan::parse_plan(text, "fuzz");
    STOKER_CHECK(r.run.model.layers > 0 && r.hardware.accelerators > 0);
    STOKER_CHECK(std::isfinite(r.tokens) && r.tokens >= 0 && r.power_cap_w >= 0);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kUsage && e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
