// data/tokenizer/definition.h
// What a byte-level BPE tokenizer is, as plain data: what files hold, what training makes, what Tokenizer is
// built from.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer/split.h"

namespace stoker::tokenizer {

struct AddedToken {
  int32_t id = 0;
  std::string content;       // UTF-8
  bool single_word = false;  // only between non-word characters
  bool lstrip = false;       // takes the whitespace before it along
  bool rstrip = false;       // takes the whitespace after it along
  bool normalized = false;   // looked for in the normalised text instead of the text
  bool special = false;
  bool operator==(const AddedToken&) const = default;
};

struct Merge {
  int32_t left = 0, right = 0, result = 0;
  uint32_t rank = 0;  // lower merges first; equal ranks: leftmost first
  bool operator==(const Merge&) const = default;
};

struct Definition {
  SplitPattern split = SplitPattern::kGpt2;
  bool nfc = false;
  bool add_prefix_space = false;
  bool ignore_merges =
      false;  // a piece that is a whole vocabulary entry is that token, whatever the merges say

  struct Entry {
    int32_t id = 0;
    std::string bytes;
    bool literal = false;  // its name has characters outside the byte alphabet: no merge or lookup yields it
    bool operator==(const Entry&) const = default;
  };
  std::vector<Entry> vocab;             // ascending ids, gaps allowed
  std::vector<Merge> merges;            // ascending ranks
  std::vector<AddedToken> added;        // in the order of the file
  std::string post_processor = "null";  // JSON, kept as it was read
  std::vector<int32_t> prefix, suffix;  // what the post-processor's template puts around a single text
  bool operator==(const Definition&) const = default;
};

// GPT-2's byte alphabet: each byte as one printable character. In the order of these characters (which is the
// order of token ids in trained vocabularies) come 188 printable Latin-1 bytes, then the other 68.
std::string byte_to_alphabet(uint8_t byte);  // UTF-8
std::string bytes_to_alphabet(std::string_view bytes);
// False when a character is not of the alphabet.
bool alphabet_to_bytes(std::string_view name, std::string& bytes);
const std::vector<uint8_t>& alphabet_order();

}  // namespace stoker::tokenizer
