#include "data/tokenizer/split_batch.h"

#include "data/tokenizer/split_scalar.h"

namespace stoker::tokenizer {
namespace {

template <SplitPattern P>
size_t find_scalar(std::string_view text, size_t begin, size_t* ends, size_t most) {
  const Splitter<P> splitter(text, UnicodeTable::get());
  size_t count = 0;
  while (begin < text.size() && count < most) ends[count++] = begin = splitter.piece_end(begin);
  return count;
}

}  // namespace

FindPieces piece_finder(SplitPattern pattern) {
  return with_split(pattern, []<SplitPattern P>() -> FindPieces { return find_scalar<P>; });
}

}  // namespace stoker::tokenizer
