#include "data/tokenizer/normalize.h"

#include <utf8proc.h>

#include <cstdlib>

#include "base/error.h"
#include "data/tokenizer/unicode_table.h"

namespace stoker::tokenizer {
namespace {

void append_composed(std::string_view region, std::string& out) {
  utf8proc_uint8_t* composed = nullptr;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(region.data());
  const utf8proc_ssize_t n = utf8proc_map(bytes, static_cast<utf8proc_ssize_t>(region.size()), &composed,
                                          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  STOKER_CHECK(n >= 0, "utf8proc: {}", utf8proc_errmsg(n));
  out.append(reinterpret_cast<const char*>(composed), static_cast<size_t>(n));
  std::free(composed);
}

}  // namespace

std::string_view to_nfc(std::string_view text, std::string& storage) {
  const UnicodeTable& table = UnicodeTable::get();
  const auto* s = reinterpret_cast<const uint8_t*>(text.data());
  const size_t n = text.size();
  bool changed = false;
  size_t copied = 0;        // text[0, copied) is in storage (when changed)
  size_t region_begin = 0;  // last character that composition leaves where it is: what follows may join it
  for (size_t i = 0; i < n;) {
    if (s[i] < 0xCC) {  // below U+0300, and bytes that start no character
      const Utf8Char c = decode_utf8(s + i, n - i);
      region_begin = c.valid ? i : i + 1;
      i += c.length;
      continue;
    }
    Utf8Char c = decode_utf8(s + i, n - i);
    if (!c.valid || !table.nfc_may_change(c.code)) {
      region_begin = c.valid ? i : i + 1;
      i += c.length;
      continue;
    }
    size_t end = i;
    while (end < n) {
      c = decode_utf8(s + end, n - end);
      if (!c.valid || !table.nfc_may_change(c.code)) break;
      end += c.length;
    }
    if (!changed) storage.clear();
    changed = true;
    storage.append(text.substr(copied, region_begin - copied));
    append_composed(text.substr(region_begin, end - region_begin), storage);
    copied = region_begin = i = end;
  }
  if (!changed) return text;
  storage.append(text.substr(copied));
  return storage;
}

}  // namespace stoker::tokenizer
