#include "data/tokenizer/unicode_table.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string>

namespace stoker::tokenizer {

const UnicodeTable& UnicodeTable::get() {
  static const UnicodeTable table;
  return table;
}

UnicodeTable::UnicodeTable() {
  constexpr size_t kBlock = 128;
  std::map<std::string, uint16_t> seen;
  size_t range = 0;
  for (size_t block = 0; block < index_.size(); ++block) {
    std::string cells(kBlock, '\0');
    for (size_t i = 0; i < kBlock; ++i) {
      const uint32_t code = static_cast<uint32_t>(block * kBlock + i);
      while (range + 1 < kUnicodeRangeCount && kUnicodeRanges[range + 1] >> 5 <= code) ++range;
      cells[i] = static_cast<char>(kUnicodeRanges[range] & 31);
    }
    const auto [it, added] = seen.emplace(cells, static_cast<uint16_t>(seen.size()));
    if (added) blocks_.insert(blocks_.end(), cells.begin(), cells.end());
    index_[block] = it->second;
  }
}

}  // namespace stoker::tokenizer
