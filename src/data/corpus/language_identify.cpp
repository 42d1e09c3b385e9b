#include "data/corpus/language_identify.h"

#include <cld2/public/compact_lang_det.h>
#include <cld2/public/encodings.h>

#include <algorithm>

#include "data/corpus/unicode_encoding.h"

namespace stoker::corpus {

namespace {

// Four places spread over a long text, each a whole number of characters.
std::string sample(std::string_view text) {
  constexpr size_t kParts = 4, kPart = kLanguageSample / kParts;
  std::string out;
  for (size_t i = 0; i < kParts; ++i) {
    size_t begin = (text.size() - kPart) / (kParts - 1) * i, end = begin + kPart;
    auto inside = [&](size_t at) { return at < text.size() && (text[at] & 0xC0) == 0x80; };
    while (inside(begin)) ++begin;
    while (end > begin && inside(end)) --end;
    out.append(text.substr(begin, end - begin)) += '\n';
  }
  return out;
}

std::string code_of(CLD2::Language language) {
  std::string code = CLD2::LanguageCode(language);
  std::transform(code.begin(), code.end(), code.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return code;
}

}  // namespace

bool is_language_code(std::string_view code) {
  for (int i = 0; i < CLD2::NUM_LANGUAGES; ++i)
    if (const auto language = static_cast<CLD2::Language>(i);
        language != CLD2::UNKNOWN_LANGUAGE && code == code_of(language))
      return true;
  return code == Language{}.code;
}

Language identify_language(std::string_view text) {
  Language out;
  // CLD2 follows a malformed byte into memory that is not its own.
  text = text.substr(0, valid_utf8_prefix(text));
  if (text.empty()) return out;
  std::string part;
  if (text.size() > kLanguageSample) text = part = sample(text);
  const int length = static_cast<int>(std::min<size_t>(text.size(), size_t{1} << 30));
  const CLD2::CLDHints hints = {nullptr, nullptr, CLD2::UNKNOWN_ENCODING, CLD2::UNKNOWN_LANGUAGE};
  CLD2::Language languages[3];
  int percents[3];
  double scores[3];
  int text_bytes = 0;
  bool reliable = false;
  const CLD2::Language best = CLD2::ExtDetectLanguageSummary(
      text.data(), length, true, &hints, 0, languages, percents, scores, nullptr, &text_bytes, &reliable);
  if (best == CLD2::UNKNOWN_LANGUAGE || languages[0] == CLD2::UNKNOWN_LANGUAGE) return out;
  out.code = code_of(languages[0]);
  out.share = static_cast<float>(percents[0]) / 100;
  out.reliable = reliable;
  return out;
}

}  // namespace stoker::corpus
