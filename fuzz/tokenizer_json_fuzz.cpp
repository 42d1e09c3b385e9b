// Any bytes as tokenizer.json: a Data or Usage error, or a tokenizer that saves as itself and loses no text.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "data/tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  using namespace stoker::tokenizer;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const Tokenizer t = Tokenizer::from_json(text);
    const Tokenizer again = Tokenizer::from_json(t.to_json());
    STOKER_CHECK(again.content_hash() == t.content_hash());
    STOKER_CHECK(again.definition() == t.definition());
    const std::string_view sample = text.substr(0, 2000);
    for (auto mode : {SpecialTokens::kAsText, SpecialTokens::kRecognise}) {
      const auto ids = t.encode(sample, mode);
      STOKER_CHECK(ids == again.encode(sample, mode));
      bool lossless = !t.definition().nfc && !t.definition().add_prefix_space;
      for (const AddedToken& a : t.added_tokens()) lossless &= !a.lstrip && !a.rstrip;
      if (lossless) STOKER_CHECK(t.decode(ids) == sample);
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData && e.kind() != ErrorKind::kUsage) throw;
  }
  return 0;
}
