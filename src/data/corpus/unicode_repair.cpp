#include "data/corpus/unicode_repair.h"

#include <unicode/normalizer2.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/error.h"
#include "data/corpus/unicode_encoding.h"

namespace stoker::corpus {
namespace {

// The windows-1252 byte of a character, or -1.
int windows_1252_byte(int32_t cp) {
  static constexpr std::array<uint16_t, 32> kHigh = {
      0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
      0x2039, 0x0152, 0x8D,   0x017D, 0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
      0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178};
  if (cp < 0x80) return -1;  // plain ASCII ends a run
  if (cp >= 0xA0 && cp <= 0xFF) return cp;
  for (size_t i = 0; i < kHigh.size(); ++i)
    if (kHigh[i] == cp) return static_cast<int>(0x80 + i);
  return cp >= 0x80 && cp <= 0x9F ? cp : -1;
}

// Undoes one level of UTF-8 read as windows-1252, run by run of non-ASCII characters.
std::string undo_double_encoding(std::string_view text, uint64_t& undone) {
  std::string out, bytes;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0x80) {
      size_t end = at + 1;
      while (end < text.size() && static_cast<unsigned char>(text[end]) < 0x80) ++end;
      out.append(text.substr(at, end - at));
      at = end;
      continue;
    }
    bytes.clear();
    const size_t run = at;
    while (at < text.size()) {
      utf8proc_int32_t cp;
      const auto used = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                         static_cast<utf8proc_ssize_t>(text.size() - at), &cp);
      const int byte = used > 0 ? windows_1252_byte(cp) : -1;
      if (byte < 0) break;
      bytes += static_cast<char>(byte);
      at += static_cast<size_t>(used);
    }
    if (at == run) {  // a character windows-1252 does not have
      const auto lead = static_cast<unsigned char>(text[at]);
      const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
      out.append(text.substr(at, length));
      at += std::min(length, text.size() - at);
    } else if (bytes.size() >= 2 && valid_utf8_prefix(bytes) == bytes.size()) {
      out += bytes;
      ++undone;
    } else {
      out.append(text.substr(run, at - run));
    }
  }
  return out;
}

enum class Fate { kKeep, kDrop, kSpace, kLine };

Fate fate_of(int32_t cp) {
  if (cp == '\n' || cp == '\t') return Fate::kKeep;
  if (cp == 0x85 || cp == 0x2028 || cp == 0x2029) return Fate::kLine;
  if (cp < 0x20 || (cp >= 0x7F && cp <= 0x9F)) return Fate::kDrop;
  if (cp == 0xA0 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x202F || cp == 0x205F || cp == 0x3000 ||
      cp == 0x1680)
    return Fate::kSpace;
  if (cp == 0xAD || cp == 0x200B || cp == 0x200E || cp == 0x200F || (cp >= 0x202A && cp <= 0x202E) ||
      cp == 0x2060 || (cp >= 0x2066 && cp <= 0x2069) || cp == 0xFEFF || (cp >= 0xFFF9 && cp <= 0xFFFB) ||
      (cp >= 0xFDD0 && cp <= 0xFDEF) || (cp & 0xFFFE) == 0xFFFE)
    return Fate::kDrop;
  return Fate::kKeep;
}

// Nearly all text is in the normal form already, and ICU knows that many times faster than it takes to make it.
bool is_normalised(const std::string& text, bool compatibility) {
  UErrorCode status = U_ZERO_ERROR;
  const auto* form =
      compatibility ? icu::Normalizer2::getNFKCInstance(status) : icu::Normalizer2::getNFCInstance(status);
  const bool normal = form && text.size() < size_t{INT32_MAX} &&
                      form->isNormalizedUTF8({text.data(), static_cast<int32_t>(text.size())}, status);
  return U_SUCCESS(status) && normal;
}

std::string normalised(std::string text, bool compatibility) {
  if (is_normalised(text, compatibility)) return text;
  utf8proc_uint8_t* mapped = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE |
                                                      (compatibility ? UTF8PROC_COMPAT : 0));
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &mapped, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  if (length < 0)
    fail(ErrorKind::kInternal, "normalising {} bytes: {}", text.size(), utf8proc_errmsg(length));
  return {reinterpret_cast<char*>(mapped), static_cast<size_t>(length)};
}

// Line by line: blanks at the end go, and more than one empty line in a row.
std::string tidy_lines(const std::string& text, bool squeeze) {
  std::string out;
  out.reserve(text.size());
  size_t feeds = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t newline = std::min(text.find('\n', at), text.size());
    size_t end = newline;
    while (end > at && (text[end - 1] == ' ' || text[end - 1] == '\t')) --end;
    if (end > at) {
      out.append(squeeze && !out.empty() ? std::min<size_t>(feeds, 2) : feeds, '\n');
      feeds = 0;
      out.append(text, at, end - at);
    }
    if (newline < text.size()) ++feeds;
    at = newline + 1;
  }
  out.append(squeeze ? std::min<size_t>(feeds, 1) : feeds, '\n');
  return out;
}

// ASCII that stays as it is.
constexpr auto kPlain = [] {
  std::array<bool, 256> table{};
  for (size_t c = 0x20; c < 0x7F; ++c) table[c] = true;
  table['\n'] = table['\t'] = true;
  return table;
}();

}  // namespace

Repaired repair_unicode(std::string_view text, const UnicodeOptions& options) {
  Repaired out;
  const bool ascii = std::none_of(text.begin(), text.end(), [](char c) { return c & 0x80; });
  std::string clean;
  clean.reserve(text.size());
  std::string fixed;
  // What was encoded twice begins with a character of U+00C2..00F4, whose first byte is C3.
  if (!ascii && options.fix_double_encoding && text.find('\xC3') != std::string_view::npos) {
    for (int level = 0; level < 2; ++level) {
      const uint64_t before = out.undone;
      std::string next = undo_double_encoding(text, out.undone);
      if (out.undone == before) break;  // text may be a view of `fixed`: left alone
      fixed = std::move(next);
      text = fixed;
    }
  }
  for (size_t at = 0; at < text.size();) {
    size_t plain = at;
    while (plain < text.size() && kPlain[static_cast<unsigned char>(text[plain])]) ++plain;
    if (plain > at) {
      clean.append(text.substr(at, plain - at));
      at = plain;
      continue;
    }
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte == '\r') {
      clean += '\n';
      at += at + 1 < text.size() && text[at + 1] == '\n' ? 2 : 1;
      continue;
    }
    if (byte < 0x80) {
      if (fate_of(byte) == Fate::kKeep) clean += text[at];
      else ++out.removed;
      ++at;
      continue;
    }
    utf8proc_int32_t cp;
    const auto used = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                       static_cast<utf8proc_ssize_t>(text.size() - at), &cp);
    if (used <= 0) {
      ++out.malformed;
      ++at;
      continue;
    }
    switch (fate_of(cp)) {
      case Fate::kKeep:
        clean.append(text.substr(at, static_cast<size_t>(used)));
        break;
      case Fate::kSpace:
        clean += ' ';
        break;
      case Fate::kLine:
        clean += '\n';
        break;
      case Fate::kDrop:
        ++out.removed;
        break;
    }
    at += static_cast<size_t>(used);
  }
  if (!ascii) clean = normalised(std::move(clean), options.compatibility);
  out.text = tidy_lines(clean, options.squeeze_blank_lines);
  return out;
}

}  // namespace stoker::corpus
