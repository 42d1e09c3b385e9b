// Any bytes as a .rows file: a Data error, or rows that lie in their shard and fit into their length.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "data/shard/pack_plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  try {
    const auto rows = data::PackRows::parse(std::as_bytes(std::span(data, size)), "fuzz.rows");
    std::vector<data::PackedPiece> pieces;
    for (uint64_t r = 0; r < rows.rows(); ++r) {
      pieces.clear();
      rows.row(r, pieces);
      uint64_t filled = 0;
      for (const auto& p : pieces) {
        filled += p.tokens;
        STOKER_CHECK(p.tokens > 0 && p.first_token <= rows.shard_tokens() &&
                     p.tokens <= rows.shard_tokens() - p.first_token);
      }
      STOKER_CHECK(filled <= rows.length());
    }
    for (const uint64_t r : rows.rows_with(0, rows.shard_tokens())) STOKER_CHECK(r < rows.rows());
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
