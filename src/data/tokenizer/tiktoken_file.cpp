#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_map>

#include "base/error.h"
#include "data/tokenizer/json_file.h"

namespace stoker::tokenizer {
namespace {

std::string decode_base64(std::string_view text, size_t line) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  static const std::array<int8_t, 256> value = [] {
    std::array<int8_t, 256> v;
    v.fill(-1);
    for (size_t i = 0; i < 64; ++i) v[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
    return v;
  }();
  std::string_view digits = text;
  while (digits.ends_with('=') && text.size() - digits.size() < 2) digits.remove_suffix(1);
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (char c : digits) {
    const int8_t v = value[static_cast<uint8_t>(c)];
    if (v < 0) fail(ErrorKind::kData, "ranks file, line {}: '{}' is not base64", line, text.substr(0, 80));
    bits = bits << 6 | static_cast<uint32_t>(v);
    if ((count += 6) >= 8) out.push_back(static_cast<char>(bits >> (count -= 8) & 0xFF));
  }
  if (text.size() % 4 || out.empty())
    fail(ErrorKind::kData, "ranks file, line {}: '{}' is not base64", line, text.substr(0, 80));
  return out;
}

}  // namespace

Definition definition_from_tiktoken(std::string_view ranks, SplitPattern split) {
  Definition d;
  d.split = split;
  size_t at = 0;
  for (size_t line = 1; at < ranks.size(); ++line) {
    const size_t end = std::min(ranks.find('\n', at), ranks.size());
    std::string_view text = ranks.substr(at, end - at);
    at = end + 1;
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.empty()) continue;
    const size_t space = text.find(' ');
    const std::string_view number = space == std::string_view::npos ? "" : text.substr(space + 1);
    Definition::Entry e;
    const auto [stop, error] = std::from_chars(number.data(), number.data() + number.size(), e.id);
    if (number.empty() || error != std::errc() || stop != number.data() + number.size() || e.id < 0)
      fail(ErrorKind::kData, "ranks file, line {}: expected 'base64 rank', found '{}'", line,
           text.substr(0, 80));
    e.bytes = decode_base64(text.substr(0, space), line);
    d.vocab.push_back(std::move(e));
  }
  if (d.vocab.empty()) fail(ErrorKind::kData, "the ranks file is empty: expected lines of 'base64 rank'");
  std::sort(d.vocab.begin(), d.vocab.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  std::unordered_map<std::string_view, int32_t> ids;
  for (const auto& e : d.vocab)
    if (!ids.emplace(e.bytes, e.id).second)
      fail(ErrorKind::kData, "ranks file: the bytes of rank {} are there twice", e.id);
  for (const auto& e : d.vocab) {
    const std::string_view bytes = e.bytes;
    const size_t before = d.merges.size();
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = ids.find(bytes.substr(0, cut)), right = ids.find(bytes.substr(cut));
      if (left != ids.end() && right != ids.end())
        d.merges.push_back({left->second, right->second, e.id, static_cast<uint32_t>(e.id)});
    }
    std::sort(d.merges.begin() + static_cast<std::ptrdiff_t>(before), d.merges.end(),
              [](const Merge& a, const Merge& b) {
                return std::pair(a.left, a.right) < std::pair(b.left, b.right);
              });
  }
  d.ignore_merges = true;  // tiktoken looks a piece up before it merges
  return d;
}

std::vector<AddedToken> published_special_tokens(std::string_view name) {
  std::vector<AddedToken> out;
  auto add = [&](const char* content, int32_t id) {
    out.push_back({id, content, false, false, false, false, true});
  };
  if (name == "gpt2" || name == "r50k_base" || name == "p50k_base" || name == "p50k_edit")
    add("<|endoftext|>", 50256);
  if (name == "p50k_edit")
    add("<|fim_prefix|>", 50281), add("<|fim_middle|>", 50282), add("<|fim_suffix|>", 50283);
  if (name == "cl100k_base") {
    add("<|endoftext|>", 100257), add("<|fim_prefix|>", 100258), add("<|fim_middle|>", 100259);
    add("<|fim_suffix|>", 100260), add("<|endofprompt|>", 100276);
  }
  if (name == "o200k_base") add("<|endoftext|>", 199999), add("<|endofprompt|>", 200018);
  return out;
}

}  // namespace stoker::tokenizer
