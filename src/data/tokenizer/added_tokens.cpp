#include "data/tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "data/tokenizer/unicode_table.h"

namespace stoker::tokenizer {
namespace {

// Start of the last character of text, which is not empty.
size_t last_character(std::string_view text) {
  const auto* s = reinterpret_cast<const uint8_t*>(text.data());
  for (size_t back = std::min<size_t>(4, text.size()); back > 1; --back) {
    const Utf8Char c = decode_utf8(s + text.size() - back, back);
    if (c.valid && c.length == back) return text.size() - back;
  }
  return text.size() - 1;
}

Utf8Char character(std::string_view text, size_t at) {
  return decode_utf8(reinterpret_cast<const uint8_t*>(text.data()) + at, text.size() - at);
}

bool is_space(Utf8Char c) { return c.valid && UnicodeTable::get().char_class(c.code) == kSpace; }
bool is_word(Utf8Char c) { return c.valid && UnicodeTable::get().is_word(c.code); }

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens, const std::vector<std::string>& contents)
    : tokens_(std::move(tokens)), trie_(1) {
  for (size_t t = 0; t < tokens_.size(); ++t) {
    const std::string& content = contents[t];
    if (content.empty()) continue;
    strips_ |= tokens_[t].lstrip || tokens_[t].rstrip;
    longest_ = std::max(longest_, content.size());
    uint32_t node = 0;
    for (char ch : content) {
      const auto byte = static_cast<uint8_t>(ch);
      auto& edges = trie_[node].edges;
      auto it = std::lower_bound(edges.begin(), edges.end(), std::pair<uint8_t, uint32_t>{byte, 0});
      if (it == edges.end() || it->first != byte) {
        const auto fresh = static_cast<uint32_t>(trie_.size());
        edges.insert(it, {byte, fresh});
        trie_.emplace_back();
        node = fresh;
      } else {
        node = it->second;
      }
    }
    if (trie_[node].token < 0) trie_[node].token = static_cast<int32_t>(t);
  }
  for (const auto& [byte, node] : trie_[0].edges) first_[byte] = true;
  if (trie_[0].edges.size() == 1) only_first_ = trie_[0].edges[0].first;
  if (trie_[0].edges.empty()) tokens_.clear();
}

size_t AddedTokenMatcher::next_candidate(std::string_view text, size_t from) const {
  if (from >= text.size()) return text.size();
  if (only_first_ >= 0) {
    const void* at = std::memchr(text.data() + from, only_first_, text.size() - from);
    return at ? static_cast<size_t>(static_cast<const char*>(at) - text.data()) : text.size();
  }
  while (from < text.size() && !first_[static_cast<uint8_t>(text[from])]) ++from;
  return from;
}

bool AddedTokenMatcher::find(std::string_view text, size_t from, size_t taken, bool skip_special,
                             Match& match) const {
  if (tokens_.empty()) return false;
  while ((from = next_candidate(text, from)) < text.size()) {
    int32_t found = -1;
    size_t end = from;
    uint32_t node = 0;
    for (size_t i = from; i < text.size(); ++i) {
      const auto& edges = trie_[node].edges;
      const auto byte = static_cast<uint8_t>(text[i]);
      const auto it = std::lower_bound(edges.begin(), edges.end(), std::pair<uint8_t, uint32_t>{byte, 0});
      if (it == edges.end() || it->first != byte) break;
      node = it->second;
      if (trie_[node].token >= 0) found = trie_[node].token, end = i + 1;
    }
    if (found < 0) {
      ++from;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    match = {from, end, end, &token};
    from = end;
    if (skip_special && token.special) continue;
    if (token.single_word) {
      const bool left =
          match.begin > 0 && is_word(character(text, last_character(text.substr(0, match.begin))));
      const bool right = end < text.size() && is_word(character(text, end));
      if (left || right) continue;
    }
    if (token.lstrip) {
      while (match.begin > taken) {
        const size_t previous = last_character(text.substr(0, match.begin));
        if (previous < taken || !is_space(character(text, previous))) break;
        match.begin = previous;
      }
    }
    if (token.rstrip) {
      while (match.end < text.size()) {
        const Utf8Char c = character(text, match.end);
        if (!is_space(c)) break;
        match.end += c.length;
      }
    }
    return true;
  }
  return false;
}

}  // namespace stoker::tokenizer
