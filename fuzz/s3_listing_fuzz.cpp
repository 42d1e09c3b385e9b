// Any bytes as a page of a bucket's listing: names that stay inside the folder asked for.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "io/object_store.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  const auto page = io::parse_s3_listing({reinterpret_cast<const char*>(data), size}, "d/");
  for (const auto& name : page.names)
    STOKER_CHECK(!name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos);
  return 0;
}
