#include "data/corpus/pii_redact.h"

#include <re2/re2.h>

#include <algorithm>
#include <numeric>

namespace stoker::corpus {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alnum(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Scanning outwards from each '@' is several times faster than an expression over the whole text.
void find_emails(std::string_view text, std::vector<PiiSpan>& out) {
  auto local = [](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '%' || c == '+' || c == '-'; };
  for (size_t at = 0; (at = text.find('@', at)) != std::string_view::npos; ++at) {
    size_t begin = at;
    while (begin > 0 && at - begin < 64 && local(text[begin - 1])) --begin;
    while (begin < at && (text[begin] == '.' || text[begin] == '-')) ++begin;
    size_t end = at + 1, last_dot = 0;
    while (end < text.size() && end - at < 254 &&
           (is_alnum(text[end]) || text[end] == '.' || text[end] == '-')) {
      if (text[end] == '.') {
        if (text[end - 1] == '.' || text[end - 1] == '@') break;
        last_dot = end;
      }
      ++end;
    }
    while (end > at && (text[end - 1] == '.' || text[end - 1] == '-')) {
      --end;
      if (last_dot == end) last_dot = text.substr(0, end).rfind('.');
    }
    if (begin == at || last_dot <= at || last_dot == std::string_view::npos || end - last_dot < 3) continue;
    const auto top = text.substr(last_dot + 1, end - last_dot - 1);
    if (!std::all_of(top.begin(), top.end(), [](char c) { return is_alnum(c) && !is_digit(c); })) continue;
    out.push_back({PiiKind::kEmail, begin, end});
  }
}

bool is_public(const std::array<int, 4>& o) {
  if (o[0] == 0 || o[0] == 10 || o[0] == 127 || o[0] >= 224) return false;
  if (o[0] == 169 && o[1] == 254) return false;
  if (o[0] == 172 && o[1] >= 16 && o[1] <= 31) return false;
  if (o[0] == 192 && (o[1] == 168 || (o[1] == 0 && (o[2] == 0 || o[2] == 2)) || (o[1] == 88 && o[2] == 99)))
    return false;
  if (o[0] == 198 && (o[1] == 18 || o[1] == 19 || (o[1] == 51 && o[2] == 100))) return false;
  if (o[0] == 203 && o[1] == 0 && o[2] == 113) return false;
  return !(o[0] == 100 && o[1] >= 64 && o[1] <= 127);
}

void find_ipv4(std::string_view text, std::vector<PiiSpan>& out) {
  for (size_t at = 0; at < text.size(); ++at) {
    if (!is_digit(text[at])) continue;
    const size_t begin = at;
    size_t end = at, parts = 0;
    std::array<int, 4> octets{};
    bool good = begin == 0 || (!is_alnum(text[begin - 1]) && text[begin - 1] != '.' &&
                               text[begin - 1] != '-' && text[begin - 1] != '_');
    while (end < text.size() && is_digit(text[end])) {
      int value = 0;
      const size_t first = end;
      while (end < text.size() && is_digit(text[end]))
        value = std::min(1000, value * 10 + (text[end++] - '0'));
      good &= value < 256 && end - first <= 3 && (end - first == 1 || text[first] != '0');
      if (parts < 4) octets[parts] = value;
      ++parts;
      if (end + 1 < text.size() && text[end] == '.' && is_digit(text[end + 1])) ++end;
      else break;
    }
    const bool alone = end == text.size() || (!is_alnum(text[end]) && text[end] != '-' && text[end] != '_');
    if (good && alone && parts == 4 && is_public(octets)) out.push_back({PiiKind::kIp, begin, end});
    at = end;
    while (at < text.size() && is_alnum(text[at])) ++at;
  }
}

void find_all(std::string_view text, const RE2& pattern, PiiKind kind, std::vector<PiiSpan>& out,
              bool (*accept)(std::string_view text, size_t begin, size_t end)) {
  const re2::StringPiece whole(text.data(), text.size());
  re2::StringPiece match;
  size_t at = 0;
  while (at <= text.size() && pattern.Match(whole, at, text.size(), RE2::UNANCHORED, &match, 1)) {
    const auto begin = static_cast<size_t>(match.data() - text.data());
    const size_t end = begin + match.size();
    if (end > begin && (!accept || accept(text, begin, end))) {
      out.push_back({kind, begin, end});
      at = end;
    } else {
      at = begin + 1;
    }
  }
}

int digits_in(std::string_view s) { return static_cast<int>(std::count_if(s.begin(), s.end(), is_digit)); }

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  auto joins = [](char c) { return is_alnum(c) || c == '_' || c == '.' || c == '-' || c == '/' || c == '='; };
  if (begin > 0 && joins(text[begin - 1])) return false;
  if (end >= text.size()) return true;
  if (text[end] == '.') return end + 1 == text.size() || !is_alnum(text[end + 1]);
  return !joins(text[end]);
}

bool looks_like_phone(std::string_view text, size_t begin, size_t end) {
  const std::string_view s = text.substr(begin, end - begin);
  const int digits = digits_in(s);
  if (digits < 7 || digits > 15 || !stands_alone(text, begin, end)) return false;
  if (s[0] == '+') return true;
  // 2026-11-21, 21.11.2026: groups of a date.
  static const RE2 date(R"((\d{4}[-. ]\d{1,2}[-. ]\d{1,2})|(\d{1,2}[-. ]\d{1,2}[-. ]\d{4}))");
  return !RE2::FullMatch(re2::StringPiece(s.data(), s.size()), date);
}

bool looks_like_card(std::string_view text, size_t begin, size_t end) {
  const std::string_view s = text.substr(begin, end - begin);
  const int digits = digits_in(s);
  if (digits < 13 || digits > 19 || !stands_alone(text, begin, end)) return false;
  if (s[0] < '3' || s[0] > '6') return false;
  int sum = 0, place = 0;
  for (size_t i = s.size(); i-- > 0;) {
    if (!is_digit(s[i])) continue;
    int d = s[i] - '0';
    if (place++ % 2) d = d * 2 > 9 ? d * 2 - 9 : d * 2;
    sum += d;
  }
  return sum % 10 == 0;
}

bool key_boundary(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !is_alnum(text[begin - 1])) && (end >= text.size() || !is_alnum(text[end]));
}

bool is_public_ipv6(std::string_view text, size_t begin, size_t end) {
  auto joins = [](char c) { return is_alnum(c) || c == ':' || c == '.'; };
  if ((begin > 0 && joins(text[begin - 1])) || (end < text.size() && is_alnum(text[end]))) return false;
  const std::string_view s = text.substr(begin, end - begin);
  const auto colons = std::count(s.begin(), s.end(), ':');
  const bool shortened = s.find("::") != std::string_view::npos;
  // Eight groups, or fewer with one "::"; three groups at least, so that C++ names and times stay.
  if (colons > 7 || (!shortened && colons != 7) || colons < 3 || digits_in(s) < 3) return false;
  return s[0] == '2' || s[0] == '3';  // 2000::/3 is all that is given out
}

const RE2& phone_pattern() {
  static const RE2 pattern(
      R"(\+\d{1,3}[-. ]?(?:\(\d{1,4}\)[-. ]?)?\d{1,4}(?:[-. ]?\d{2,4}){1,4}|\(\d{3}\) ?\d{3}[-. ]\d{4}|\d{3}[-. ]\d{3}[-. ]\d{4})");
  return pattern;
}
const RE2& card_pattern() {
  static const RE2 pattern(R"([3-6]\d{3}[- ]?\d{4}[- ]?\d{4}[- ]?\d{1,7}|3\d{3}[- ]?\d{6}[- ]?\d{5})");
  return pattern;
}
const RE2& ipv6_pattern() {
  static const RE2 pattern(R"([23][0-9A-Fa-f]{0,3}(?::[0-9A-Fa-f]{0,4}){3,7})");
  return pattern;
}
const RE2& key_pattern() {
  static const RE2 pattern(
      R"((?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{40,}|glpat-[0-9A-Za-z_-]{20,})"
      R"(|xox[abprs]-[0-9A-Za-z-]{10,}|AIza[0-9A-Za-z_-]{35}|sk-[0-9A-Za-z_-]{32,}|hf_[0-9A-Za-z]{30,})"
      R"(|eyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,})"
      R"(|-----BEGIN [A-Z ]*PRIVATE KEY-----[0-9A-Za-z+/=\s]*(?:-----END [A-Z ]*PRIVATE KEY-----)?)");
  return pattern;
}

std::string_view placeholder(PiiKind kind, size_t number, bool fineweb) {
  static constexpr std::array<std::string_view, 2> kEmails = {"email@example.com",
                                                              "firstname.lastname@example.org"};
  static constexpr std::array<std::string_view, 6> kIps = {
      "22.214.171.124", "126.96.36.199", "220.127.116.11", "188.8.131.52", "184.108.40.206", "18.104.22.168"};
  if (fineweb && kind == PiiKind::kEmail) return kEmails[number % kEmails.size()];
  if (fineweb && kind == PiiKind::kIp) return kIps[number % kIps.size()];
  static constexpr std::array<std::string_view, 5> kMasks = {"<email>", "<ip>", "<phone>", "<card>", "<key>"};
  return kMasks[static_cast<size_t>(kind)];
}

}  // namespace

std::string_view to_string(PiiKind kind) {
  static constexpr std::array<std::string_view, 5> kNames = {"email", "ip", "phone", "card", "key"};
  return kNames[static_cast<size_t>(kind)];
}

std::vector<PiiSpan> find_pii(std::string_view text, const PiiOptions& options) {
  std::vector<PiiSpan> found;
  auto on = [&](PiiKind kind) { return options.kinds[static_cast<size_t>(kind)]; };
  if (on(PiiKind::kKey)) find_all(text, key_pattern(), PiiKind::kKey, found, key_boundary);
  if (on(PiiKind::kEmail)) find_emails(text, found);
  if (on(PiiKind::kIp)) {
    find_ipv4(text, found);
    find_all(text, ipv6_pattern(), PiiKind::kIp, found, is_public_ipv6);
  }
  if (on(PiiKind::kCard)) find_all(text, card_pattern(), PiiKind::kCard, found, looks_like_card);
  if (on(PiiKind::kPhone)) find_all(text, phone_pattern(), PiiKind::kPhone, found, looks_like_phone);
  // The longest of those that start first; overlapping ones go.
  std::stable_sort(found.begin(), found.end(), [](const PiiSpan& a, const PiiSpan& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  std::vector<PiiSpan> out;
  for (const auto& span : found)
    if (out.empty() || span.begin >= out.back().end) out.push_back(span);
  return out;
}

uint32_t Redacted::total() const { return std::accumulate(counts.begin(), counts.end(), 0u); }

Redacted redact_pii(std::string_view text, const PiiOptions& options) {
  Redacted out;
  size_t copied = 0;
  for (const auto& span : find_pii(text, options)) {
    uint32_t& count = out.counts[static_cast<size_t>(span.kind)];
    out.text.append(text.substr(copied, span.begin - copied));
    out.text.append(placeholder(span.kind, count, options.fineweb_substitutes));
    ++count;
    copied = span.end;
  }
  out.text.append(text.substr(copied));
  return out;
}

}  // namespace stoker::corpus
