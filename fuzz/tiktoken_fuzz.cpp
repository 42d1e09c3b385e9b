// Any bytes as a .tiktoken ranks file: a Data error, or a tokenizer that encodes what it has bytes for without loss and
// means the same after a round trip through tokenizer.json.
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

#include "base/error.h"
#include "data/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  using namespace stoker::tokenizer;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const SplitPattern split = kSplitPatterns[size % std::size(kSplitPatterns)];
  try {
    const Tokenizer t = Tokenizer::from_tiktoken(text, split);
    const Tokenizer again = Tokenizer::from_json(t.to_json());
    STOKER_CHECK(again.definition().vocab == t.definition().vocab);
    STOKER_CHECK(t.decode(t.encode(text)) == text);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
