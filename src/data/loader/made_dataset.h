// data/loader/made_dataset.h
// A small dataset in memory whose tokens say which document they are from. For this room's tests.
#pragma once
#include <memory>
#include <vector>

#include "base/random.h"
#include "data/shard/token_file.h"
#include "io/memory_file_system.h"

namespace stoker::data {

inline constexpr int32_t kEod = 0, kBos = 1, kVocabulary = 1000;

inline void put(io::FileSystem& fs, const std::string& path, std::string_view contents) {
  const auto f = fs.create(path);
  f->append(contents);
  f->close();
}

struct Made {
  io::MemoryFileSystem fs;
  std::vector<int32_t> stream;
  std::vector<uint64_t> starts;  // of documents in the stream
};

// Documents of 0 to 39 words over several shards; token ids say which document they are from (2 + document %
// 900).
inline std::unique_ptr<Made> make(int documents, bool eod, bool bos, int per_shard = 7) {
  auto made = std::make_unique<Made>();
  made->fs.make_dirs("d");
  put(made->fs, "d/tokenizer.json", "{}");
  put(made->fs, "d/sources.jsonl", "");
  Manifest m;
  m.tokenizer = {{"tokenizer.json", 2, hash128("{}")}, kVocabulary, eod ? kEod : -1, bos ? kBos : -1};
  m.sources = {"sources.jsonl", 0, hash128("")};
  SplitRecord split{"train", 0, 0, 0, {}};
  std::unique_ptr<ShardWriter> writer;
  for (int d = 0; d < documents; ++d) {
    if (!writer)
      writer = std::make_unique<ShardWriter>(made->fs, "d", fmt::format("train_{:05}", split.shards.size()),
                                             TokenType::kUint16);
    std::vector<int32_t> tokens;
    if (bos) tokens.push_back(kBos);
    const auto words = random_u64({5, 5}, static_cast<uint64_t>(d)) % 40;
    tokens.insert(tokens.end(), words, 2 + d % 900);
    if (eod) tokens.push_back(kEod);
    if (!tokens.empty()) made->starts.push_back(made->stream.size());
    made->stream.insert(made->stream.end(), tokens.begin(), tokens.end());
    writer->add(tokens, {hash128("t"), 5, 0, 0});
    if (writer->documents() == static_cast<uint64_t>(per_shard) || d + 1 == documents) {
      split.add(writer->finish());
      writer.reset();
    }
  }
  m.splits.push_back(split);
  put(made->fs, "d/manifest.json", m.to_json());
  return made;
}

}  // namespace stoker::data
