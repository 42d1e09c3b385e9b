// A page from anywhere: text of valid UTF-8 within the limits, or a Data error; never a crash.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "data/corpus/html_extract.h"
#include "data/corpus/unicode_encoding.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker::corpus;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto guess = detect_encoding(bytes, "", true);
  const std::string text = decode_to_utf8(bytes, guess).text;
  STOKER_CHECK(valid_utf8_prefix(text) == text.size());
  HtmlOptions options;
  options.limits.arena_bytes = 64u << 20;
  for (const bool main_content : {true, false}) {
    options.main_content = main_content;
    const auto page = extract_html(text, options);
    if (!page.ok()) continue;
    STOKER_CHECK(valid_utf8_prefix(page.value().text) == page.value().text.size());
  }
  return 0;
}
