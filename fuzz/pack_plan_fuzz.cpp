// Any bytes as NAME.plan.json: a Data error, or a plan that writes and reads back as itself.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "data/shard/pack_plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  try {
    const auto plan =
        data::PackPlanManifest::parse({reinterpret_cast<const char*>(data), size}, "fuzz.plan.json");
    STOKER_CHECK(data::PackPlanManifest::parse(plan.to_json(), "again.plan.json") == plan);
    STOKER_CHECK(plan.padding() >= 0 && plan.padding() <= 1);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
