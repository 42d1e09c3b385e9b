// data/tokenizer/split_batch.h
// Many pieces per call: the fastest splitter for a pattern on this processor. Private to this room.
// Same pieces as piece_end(); tests compare every path with it.
#pragma once
#include <cstddef>
#include <string_view>

#include "data/tokenizer/split.h"

namespace stoker::tokenizer {

// Writes the ends of the pieces that follow `begin` (where a piece starts), at most `most` of them, and
// returns how many: at least one while begin < text.size().
using FindPieces = size_t (*)(std::string_view text, size_t begin, size_t* ends, size_t most);
FindPieces piece_finder(SplitPattern pattern);
inline constexpr size_t kPieceBatch = 128;

// Calls body(piece) for all of text.
template <typename Body>
void for_each_piece(FindPieces find, std::string_view text, Body&& body) {
  size_t ends[kPieceBatch];
  for (size_t begin = 0; begin < text.size();) {
    const size_t count = find(text, begin, ends, kPieceBatch);
    for (size_t i = 0; i < count; ++i) {
      body(text.substr(begin, ends[i] - begin));
      begin = ends[i];
    }
  }
}

}  // namespace stoker::tokenizer
