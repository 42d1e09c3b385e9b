// data/tokenizer/split_batch.h
// Many pieces per call: the fastest splitter for a pattern on this processor. Private to this room.
// Same pieces as piece_end(); tests compare every path with it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/cpu_features.h"
#include "data/tokenizer/split.h"

namespace stoker::tokenizer {

// One per instruction set, in the files of these names; `scalar` finds a single piece.
using FindWindowed = size_t (*)(const uint8_t* text, size_t size, size_t begin, size_t* ends, size_t most,
                                size_t (*scalar)(const uint8_t* text, size_t size, size_t begin));
FindWindowed avx2_finder(SplitPattern pattern);
FindWindowed avx512_finder(SplitPattern pattern);

class PieceFinder {
 public:
  explicit PieceFinder(SplitPattern pattern, Isa isa = cpu_isa());
  // Writes the ends of the pieces that follow `begin` (where a piece starts), at most `most` of them, and returns how
  // many: at least one while begin < text.size().
  size_t operator()(std::string_view text, size_t begin, size_t* ends, size_t most) const {
    return find_(reinterpret_cast<const uint8_t*>(text.data()), text.size(), begin, ends, most, scalar_);
  }

 private:
  FindWindowed find_;
  size_t (*scalar_)(const uint8_t*, size_t, size_t);
};

inline constexpr size_t kPieceBatch = 192;

// Calls body(piece) for all of text.
template <typename Body>
void for_each_piece(const PieceFinder& find, std::string_view text, Body&& body) {
  size_t ends[kPieceBatch];
  for (size_t begin = 0; begin < text.size();) {
    const size_t count = find(text, begin, ends, kPieceBatch);
    for (size_t i = 0; i < count; ++i) {
      body(std::string_view(text.data() + begin, ends[i] - begin));
      begin = ends[i];
    }
  }
}

}  // namespace stoker::tokenizer
