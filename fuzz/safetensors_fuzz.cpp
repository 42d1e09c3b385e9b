// Any bytes as a .safetensors file: a Data error, or tensors that lie side by side inside the file.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  try {
    const auto header =
        io::parse_safetensors_header({reinterpret_cast<const char*>(data), size}, size, "fuzz");
    uint64_t end = 0;
    for (const auto& t : header.tensors) {
      STOKER_CHECK(t.offset >= end && t.bytes <= size && t.offset <= size - t.bytes);
      STOKER_CHECK(io::declared_bytes(t) == t.bytes);
      end = t.offset + t.bytes;
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
