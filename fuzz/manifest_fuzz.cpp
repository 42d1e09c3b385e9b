// Any bytes as manifest.json: a Data error, or a manifest that writes and reads back as itself.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "data/shard/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  try {
    const auto m = data::Manifest::parse({reinterpret_cast<const char*>(data), size}, "fuzz.json");
    STOKER_CHECK(data::Manifest::parse(m.to_json(), "again.json") == m);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
