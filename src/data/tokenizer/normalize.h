// data/tokenizer/normalize.h
// Unicode canonical composition (NFC) of text that may hold bad UTF-8 (bytes that are not characters stay as
// they are). Cost  text without combining marks: one scan, no copy. The characters around a mark go through
// utf8proc
#pragma once
#include <string>
#include <string_view>

namespace stoker::tokenizer {

// text itself when it is already composed, else a view of `storage`.
std::string_view to_nfc(std::string_view text, std::string& storage);

}  // namespace stoker::tokenizer
