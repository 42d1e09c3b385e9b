#include "data/corpus/unicode_encoding.h"

#include <unicode/ucnv.h>
#include <unicode/ucsdet.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "base/error.h"
#include "data/corpus/ascii.h"

namespace stoker::corpus {
namespace {

struct CloseConverter {
  void operator()(UConverter* c) const { ucnv_close(c); }
};
using Converter = std::unique_ptr<UConverter, CloseConverter>;

// What a label means on the web, as a name ICU has; empty when ICU has none.
std::string converter_name(std::string_view label) {
  std::string name;
  for (const char c : label)
    if (static_cast<unsigned char>(c) > ' ' && c != '"' && c != '\'') name += ascii_lower(c);
  if (name.empty() || name.size() > 40) return {};
  static constexpr std::array<std::array<std::string_view, 2>, 18> kMeans = {{
      {"utf8", "UTF-8"},
      {"unicode-1-1-utf-8", "UTF-8"},
      {"iso-8859-1", "windows-1252"},
      {"iso8859-1", "windows-1252"},
      {"latin1", "windows-1252"},
      {"latin-1", "windows-1252"},
      {"us-ascii", "windows-1252"},
      {"ascii", "windows-1252"},
      {"iso-8859-9", "windows-1254"},
      {"iso-8859-11", "windows-874"},
      {"tis-620", "windows-874"},
      {"gb2312", "gb18030"},
      {"gbk", "gb18030"},
      {"x-gbk", "gb18030"},
      {"shift_jis", "windows-31j"},
      {"x-sjis", "windows-31j"},
      {"euc-kr", "windows-949"},
      {"ks_c_5601-1987", "windows-949"},
  }};
  for (const auto& [from, to] : kMeans)
    if (name == from) return std::string(to);
  // UTF-7, SCSU and the like hide markup from every scanner: browsers refuse them, so do we.
  if (name.find("utf-7") != std::string::npos || name == "scsu" || name == "bocu-1" ||
      name == "imap-mailbox-name")
    return {};
  UErrorCode status = U_ZERO_ERROR;
  const Converter converter(ucnv_open(name.c_str(), &status));
  if (U_FAILURE(status) || !converter) return {};
  const char* canonical = ucnv_getName(converter.get(), &status);
  for (const char* standard : {"MIME", "IANA"}) {
    UErrorCode unnamed = U_ZERO_ERROR;
    const char* known = ucnv_getStandardName(canonical, standard, &unnamed);
    if (known && U_SUCCESS(unnamed)) return known;
  }
  return U_SUCCESS(status) ? canonical : std::string();
}

// The label in <meta charset=...>, <meta http-equiv ... content="...charset=..."> or <?xml encoding="...">,
// looked for in the first 4096 bytes as browsers do in the first 1024.
std::string_view declared_in_markup(std::string_view bytes) {
  const std::string_view head = bytes.substr(0, 4096);
  auto matches = [&](size_t at, std::string_view word) {
    if (head.size() - at < word.size()) return false;
    for (size_t i = 0; i < word.size(); ++i)
      if (ascii_lower(head[at + i]) != word[i]) return false;
    return true;
  };
  auto value_after = [&](size_t at) -> std::string_view {
    auto blank = [&] {
      return at < head.size() && std::strchr(" \t\r\n\"'", head[at]) != nullptr && head[at];
    };
    while (blank()) ++at;
    if (at >= head.size() || head[at] != '=') return {};
    ++at;
    while (blank()) ++at;
    size_t end = at;
    while (end < head.size() && std::strchr(" \t\r\n\"'>;/?", head[end]) == nullptr) ++end;
    return head.substr(at, end - at);
  };
  bool in_meta = false, in_xml = matches(0, "<?xml");
  for (size_t at = 0; at < head.size(); ++at) {
    if (head[at] == '<') {
      if (matches(at, "<!--")) {
        const size_t end = head.find("-->", at + 4);
        if (end == std::string_view::npos) return {};
        at = end + 2;
        continue;
      }
      in_meta = matches(at, "<meta");
    } else if (head[at] == '>') {
      in_meta = in_xml = false;
    } else if (in_meta && matches(at, "charset")) {
      const auto value = value_after(at + 7);
      if (!value.empty()) return value;
    } else if (in_xml && matches(at, "encoding")) {
      const auto value = value_after(at + 8);
      if (!value.empty()) return value;
    }
  }
  return {};
}

std::string detect_by_statistics(std::string_view bytes) {
  UErrorCode status = U_ZERO_ERROR;
  std::unique_ptr<UCharsetDetector, void (*)(UCharsetDetector*)> detector(ucsdet_open(&status), ucsdet_close);
  if (U_FAILURE(status)) return {};
  // ICU samples its input anyway; 64 KiB hold enough letters.
  const auto length = static_cast<int32_t>(std::min<size_t>(bytes.size(), 65536));
  ucsdet_setText(detector.get(), bytes.data(), length, &status);
  ucsdet_enableInputFilter(detector.get(), true);
  const UCharsetMatch* match = ucsdet_detect(detector.get(), &status);
  if (U_FAILURE(status) || !match) return {};
  const int32_t confidence = ucsdet_getConfidence(match, &status);
  const char* name = ucsdet_getName(match, &status);
  if (U_FAILURE(status) || confidence < 20 || !name) return {};
  return converter_name(name);
}

}  // namespace

size_t valid_utf8_prefix(std::string_view bytes) {
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
  const size_t n = bytes.size();
  size_t i = 0;
  while (i < n) {
    while (i + 8 <= n) {
      uint64_t word;
      std::memcpy(&word, p + i, 8);
      if (word & 0x8080808080808080ull) break;
      i += 8;
    }
    if (i >= n) break;
    const unsigned char c = p[i];
    if (c < 0x80) {
      ++i;
      continue;
    }
    const size_t length = c >= 0xC2 && c <= 0xDF   ? 2
                          : c >= 0xE0 && c <= 0xEF ? 3
                          : c >= 0xF0 && c <= 0xF4 ? 4
                                                   : 0;
    if (length == 0 || n - i < length) return i;
    const unsigned char second_low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    const unsigned char second_high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (p[i + 1] < second_low || p[i + 1] > second_high) return i;
    for (size_t k = 2; k < length; ++k)
      if ((p[i + k] & 0xC0) != 0x80) return i;
    i += length;
  }
  return n;
}

EncodingGuess detect_encoding(std::string_view bytes, std::string_view hint, bool html) {
  auto starts = [&](std::string_view mark) { return bytes.substr(0, mark.size()) == mark; };
  if (starts("\xEF\xBB\xBF")) return {"UTF-8", "bom"};
  if (starts(std::string_view("\xFF\xFE\0\0", 4))) return {"UTF-32LE", "bom"};
  if (starts(std::string_view("\0\0\xFE\xFF", 4))) return {"UTF-32BE", "bom"};
  if (starts("\xFF\xFE")) return {"UTF-16LE", "bom"};
  if (starts("\xFE\xFF")) return {"UTF-16BE", "bom"};
  const bool ascii = std::none_of(bytes.begin(), bytes.end(), [](char c) { return c & 0x80; });
  const bool valid = valid_utf8_prefix(bytes) == bytes.size();
  if (valid && !ascii) return {"UTF-8", "valid"};
  for (const bool meta : {false, true}) {
    if (meta && !html) break;
    std::string name = converter_name(meta ? declared_in_markup(bytes) : hint);
    if (name.empty()) continue;
    const char* source = meta ? "meta" : "declared";
    // A page whose declaration we could read byte by byte is not UTF-16, whatever it says.
    if (meta && name.rfind("UTF-16", 0) == 0) name = "UTF-8";
    // Escape-coded encodings (ISO-2022-JP, HZ) look like ASCII; everything else that is ASCII is UTF-8
    // already.
    if (ascii && name.rfind("ISO", 0) != 0 && name.rfind("iso", 0) != 0 && name.rfind("HZ", 0) != 0 &&
        name.rfind("UTF-16", 0) != 0 && name.rfind("UTF-32", 0) != 0)
      return {"UTF-8", "ascii"};
    return {name, source};
  }
  if (ascii) return {"UTF-8", "ascii"};
  std::string name = detect_by_statistics(bytes);
  if (!name.empty()) return {name, "statistics"};
  return {"windows-1252", "fallback"};
}

Decoded decode_to_utf8(std::string_view bytes, const EncodingGuess& encoding) {
  Decoded out;
  if (encoding.name == "UTF-8") {
    if (bytes.substr(0, 3) == "\xEF\xBB\xBF") bytes.remove_prefix(3);
    while (true) {
      const size_t good = valid_utf8_prefix(bytes);
      out.text.append(bytes.substr(0, good));
      bytes.remove_prefix(good);
      if (bytes.empty()) return out;
      // One replacement for each malformed lead byte; the bytes after it are looked at again.
      out.text += "\xEF\xBF\xBD";
      ++out.replaced;
      bytes.remove_prefix(1);
      while (!bytes.empty() && (bytes[0] & 0xC0) == 0x80 && valid_utf8_prefix(bytes) == 0)
        bytes.remove_prefix(1);
    }
  }
  UErrorCode status = U_ZERO_ERROR;
  const Converter from(ucnv_open(encoding.name.c_str(), &status));
  if (U_FAILURE(status)) fail(ErrorKind::kInternal, "no converter for encoding {}", encoding.name);
  const Converter to(ucnv_open("UTF-8", &status));
  if (U_FAILURE(status)) fail(ErrorKind::kInternal, "no UTF-8 converter");
  const char* source = bytes.data();
  const char* const source_end = source + bytes.size();
  std::array<UChar, 4096> pivot;
  UChar *pivot_from = pivot.data(), *pivot_to = pivot.data();
  std::array<char, 16384> block;
  bool first = true;
  do {
    char* target = block.data();
    status = U_ZERO_ERROR;
    ucnv_convertEx(to.get(), from.get(), &target, block.data() + block.size(), &source, source_end,
                   pivot.data(), &pivot_from, &pivot_to, pivot.data() + pivot.size(), first, true, &status);
    if (U_FAILURE(status) && status != U_BUFFER_OVERFLOW_ERROR)
      fail(ErrorKind::kInternal, "converting from {}: {}", encoding.name, u_errorName(status));
    first = false;
    out.text.append(block.data(), target);
  } while (status == U_BUFFER_OVERFLOW_ERROR);
  if (std::string_view(out.text).substr(0, 3) == "\xEF\xBB\xBF") out.text.erase(0, 3);
  // ICU writes SUB for a malformed single byte and U+FFFD for longer ones; one mark for both. (Only a Unicode
  // encoding can spell U+FFFD itself, and there it marks earlier damage just the same.)
  for (size_t at = 0; (at = out.text.find('\x1A', at)) != std::string::npos; at += 3)
    out.text.replace(at, 1, "\xEF\xBF\xBD");
  for (size_t at = 0; (at = out.text.find("\xEF\xBF\xBD", at)) != std::string::npos; at += 3) ++out.replaced;
  return out;
}

}  // namespace stoker::corpus
