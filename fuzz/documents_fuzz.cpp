// Any bytes as an input file, read as text, JSON lines, tar or MDS (the first byte says which, and how small the pieces
// are), plain or compressed. Whatever they are: documents of valid UTF-8 within the limit, and the same ones
// for pieces of any size.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/corpus/document_reader.h"
#include "io/memory_file_system.h"

namespace {
using namespace stoker;

std::vector<std::string> read_all(io::FileSystem& fs, corpus::SourceFormat format, uint64_t load_bytes) {
  const std::vector<corpus::SourceFile> sources{{"f", "f", 0, format, fs.info("f").size}};
  corpus::ReadOptions options;
  options.max_document_bytes = 4096;
  options.load_bytes = load_bytes;
  corpus::DocumentReader reader(fs, sources, options);
  std::vector<std::string> texts;
  while (auto load = reader.next())
    for (auto& d : reader.open(std::move(*load)).documents) {
      STOKER_CHECK(corpus::find_invalid_utf8(d.text) == std::string::npos);
      STOKER_CHECK(d.text.size() <= 4096 + 4 && !d.text.empty());
      texts.push_back(std::to_string(d.record) + d.text);
    }
  return texts;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  io::MemoryFileSystem fs;
  const auto file = fs.create("f");
  file->append(data + 1, size - 1);
  static constexpr corpus::SourceFormat kFormats[] = {corpus::SourceFormat::kJsonLines,
                                                      corpus::SourceFormat::kText, corpus::SourceFormat::kTar,
                                                      corpus::SourceFormat::kMds};
  const auto format = kFormats[data[0] & 3];
  const auto small = read_all(fs, format, 1 + data[0] / 4);
  STOKER_CHECK(small == read_all(fs, format, 1 << 20));
  return 0;
}
