// Any bytes as vocab.json and merges.txt (cut at the first 0xFF): a Data error, or a tokenizer that loses no text.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "data/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  using namespace stoker::tokenizer;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(text.find('\xff'), text.size());
  try {
    const Tokenizer t = Tokenizer::from_vocab_and_merges(
        text.substr(0, cut), text.substr(std::min(cut + 1, text.size())), SplitPattern::kGpt2);
    STOKER_CHECK(t.decode(t.encode(text)) == text);
    STOKER_CHECK(Tokenizer::from_json(t.to_json()).definition() == t.definition());
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
