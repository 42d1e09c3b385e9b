// Any bytes as a data build's recipe: a Usage or Data error, or stages whose keys can be computed.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "data/corpus/factory_recipe.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  try {
    const auto recipe =
        corpus::parse_recipe({reinterpret_cast<const char*>(data), size}, "fuzz.toml", "/nowhere");
    for (const auto& stage : recipe.stages)
      STOKER_CHECK(stage.full_key().size() >= stage.compute_key().size());
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kUsage && e.kind() != ErrorKind::kData && e.kind() != ErrorKind::kStorage)
      throw;
  }
  return 0;
}
