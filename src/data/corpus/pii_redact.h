// data/corpus/pii_redact.h
// Finds and masks personal and secret strings: e-mail addresses, IP addresses, telephone numbers, payment
// card numbers, and access keys (AWS, GitHub, GitLab, Slack, Google, OpenAI-style, JWT, PEM private keys).
// Precision first: an IPv4 address must stand alone (no version numbers inside longer ones), have four octets
// below 256 and be public (private, loopback, link-local, documentation, multicast and 0/8 stay: they
// identify nobody); a card number must pass Luhn's check and start like one; a telephone number needs a + or
// separators and 7..15 digits and is not a date. Masks     "<email>", "<ip>", "<phone>", "<card>", "<key>".
// fineweb_substitutes: the fixed
//           e-mail and IP addresses FineWeb writes (2 and 6 in turn), the rest as placeholders
// Input     UTF-8. A pure function; linear (RE2, no backtracking)
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::corpus {

enum class PiiKind { kEmail, kIp, kPhone, kCard, kKey, kCount };
std::string_view to_string(PiiKind kind);

struct PiiOptions {
  std::array<bool, static_cast<size_t>(PiiKind::kCount)> kinds = {true, true, true, true, true};
  bool fineweb_substitutes = false;
};

struct PiiSpan {
  PiiKind kind;
  size_t begin, end;
};

// Not overlapping, in text order.
std::vector<PiiSpan> find_pii(std::string_view text, const PiiOptions& options = {});

struct Redacted {
  std::string text;
  std::array<uint32_t, static_cast<size_t>(PiiKind::kCount)> counts{};
  uint32_t total() const;
};
Redacted redact_pii(std::string_view text, const PiiOptions& options = {});

}  // namespace stoker::corpus
