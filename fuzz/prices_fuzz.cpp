// Any bytes as a price catalog, of SkyPilot's form and of ours: a Data error, or offers that cost something.
#include "plan/prices.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace {

template <typename Read>
void read(const Read& offers_of) {
  using namespace stoker;
  try {
    for (const plan::Offer& o : offers_of()) {
      STOKER_CHECK(o.count > 0);
      STOKER_CHECK(o.on_demand || o.spot_low);
      for (const auto& price : {o.on_demand, o.spot_low, o.spot_high})
        STOKER_CHECK(!price || (*price >= 0 && !std::isnan(*price)));
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  read([&] { return stoker::plan::read_skypilot("cloud", text, "fuzz"); });
  read([&] { return stoker::plan::read_published("fuzz", text); });
  return 0;
}
