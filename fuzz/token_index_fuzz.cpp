// The first byte says how long the .bin is said to be; the rest is an .idx. Whatever the bytes: a Data error
// or a sound index.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "data/shard/block_sums.h"
#include "data/shard/document_table.h"
#include "data/shard/token_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  if (size == 0) return 0;
  const uint64_t bin_bytes = uint64_t{data[0]} * 2;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  try {
    const auto index = data::TokenIndex::parse(bytes, "fuzz.idx");
    index.check(bin_bytes);
    int64_t tokens = 0;
    for (uint64_t i = 0; i < index.sequences(); ++i) tokens += index.length(i);
    STOKER_CHECK(static_cast<uint64_t>(tokens) * data::token_bytes(index.token_type()) == bin_bytes);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  try {
    const auto table = data::DocumentTable::parse(bytes, "fuzz.docs");
    for (uint64_t i = 0; i < table.documents(); ++i) (void)table.at(i);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  try {
    const auto sums = data::BlockSums::parse(bytes, "fuzz.sums");
    uint64_t total = 0;
    for (uint64_t b = 0; b < sums.sums.size(); ++b) total += sums.block_size(b);
    STOKER_CHECK(total == sums.file_bytes);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
