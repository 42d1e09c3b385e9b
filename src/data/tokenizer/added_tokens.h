// data/tokenizer/added_tokens.h
// Finds added tokens (special ones and others) in text, before it is split: at each place the longest one,
// from left to right, with the lstrip, rstrip and single_word rules of Hugging Face tokenizers. Cost  one
// scan of the text for the tokens' first bytes; no match costs memory speed when they share one first byte
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/definition.h"

namespace stoker::tokenizer {

class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  // contents[i] is what to look for in place of tokens[i].content (it may be normalised).
  AddedTokenMatcher(std::vector<AddedToken> tokens, const std::vector<std::string>& contents);
  bool empty() const { return tokens_.empty(); }
  bool has_rstrip_or_lstrip() const { return strips_; }
  size_t longest() const { return longest_; }

  struct Match {
    size_t begin, end;  // of the text taken, stripped whitespace included
    size_t resume;      // where the search goes on
    const AddedToken* token;
  };
  // The first match at or after `from` that is accepted; skip_special passes over special tokens as the
  // reference does (their text is consumed by the search but not split off). taken: end of the previous
  // match.
  bool find(std::string_view text, size_t from, size_t taken, bool skip_special, Match& match) const;

 private:
  struct Node {
    std::vector<std::pair<uint8_t, uint32_t>> edges;  // sorted by byte
    int32_t token = -1;
  };
  size_t next_candidate(std::string_view text, size_t from) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> trie_;
  std::array<bool, 256> first_{};
  int only_first_ = -1;
  bool strips_ = false;
  size_t longest_ = 0;
};

}  // namespace stoker::tokenizer
