// Any bytes as config.json: a Data or Usage error, or a model that its own config.json describes again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "spec/hf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  HfConfig config;
  try {
    config = parse_hf_config({reinterpret_cast<const char*>(data), size}, "fuzz");
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData && e.kind() != ErrorKind::kUsage) throw;
    return 0;
  }
  STOKER_CHECK(parse_hf_config(to_hf_config(config), "again").model == config.model);
  return 0;
}
