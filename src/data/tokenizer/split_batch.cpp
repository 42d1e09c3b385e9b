#include "data/tokenizer/split_batch.h"

#include "data/tokenizer/split_scalar.h"

namespace stoker::tokenizer {
namespace {

template <SplitPattern P>
size_t scalar_end(const uint8_t* s, size_t n, size_t begin) {
  return Splitter<P>({reinterpret_cast<const char*>(s), n}, UnicodeTable::get()).piece_end(begin);
}

template <SplitPattern P>
size_t find_scalar(const uint8_t* s, size_t n, size_t begin, size_t* ends, size_t most,
                   size_t (*)(const uint8_t*, size_t, size_t)) {
  const Splitter<P> splitter({reinterpret_cast<const char*>(s), n}, UnicodeTable::get());
  size_t count = 0;
  while (begin < n && count < most) ends[count++] = begin = splitter.piece_end(begin);
  return count;
}

}  // namespace

PieceFinder::PieceFinder(SplitPattern pattern, Isa isa) {
  with_split(pattern, [&]<SplitPattern P>() {
    scalar_ = scalar_end<P>;
    find_ = isa >= Isa::kAvx512 ? avx512_finder(P) : isa >= Isa::kAvx2 ? avx2_finder(P) : find_scalar<P>;
  });
}

}  // namespace stoker::tokenizer
