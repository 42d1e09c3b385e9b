// data/loader/split_stream.h
// One split of a dataset as one long stream of tokens: its shards end to end.
// Cost      read: O(log shards) + the tokens; document starts: O(log documents) + those found. Shards are
//           opened when first touched and at most max_open stay open, so that a split of any size starts in
//           O(1)
// Threads   every method from any thread
// Errors    Data: a token outside the vocabulary, or damage found on the way; names the file
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/shard/dataset.h"
#include "io/file_system.h"
#include "io/retry.h"

namespace stoker::data {

// The seam to where shards lie: gives an open shard, for as long as the caller holds it.
class ShardSource {
 public:
  virtual ~ShardSource() = default;
  virtual void read(size_t shard, uint64_t first, std::span<int32_t> out) = 0;
  // Appends the first token of every document that starts in [first, first + count).
  virtual void document_starts(size_t shard, uint64_t first, uint64_t count, std::vector<uint64_t>& out) = 0;
  // Another file of the dataset, whole: what it maps is near and has been verified if it came from afar.
  virtual std::unique_ptr<io::ReadableFile> open_side(const FileRecord& file) = 0;
  // Says that it will be opened soon. Must not block.
  virtual void will_open_side(const FileRecord& /*file*/) {}
  // Says that these tokens will be read soon. Must not block.
  virtual void will_read(size_t /*shard*/, uint64_t /*first*/, uint64_t /*count*/) {}
};

// Shards in the dataset's own directory. Reads that fail with a Storage error (a mounted file system that went away) are tried again.
std::unique_ptr<ShardSource> local_shard_source(Dataset dataset, const std::string& split,
                                                size_t max_open = 256, io::RetryPolicy retry = {});

// What document_starts() means for the index of a shard; shared by all sources.
void append_document_starts(const TokenIndex& index, uint64_t total_tokens, uint64_t first, uint64_t count,
                            std::vector<uint64_t>& out);

class SplitStream {
 public:
  SplitStream(const SplitRecord& split, int64_t vocabulary, std::unique_ptr<ShardSource> source);
  uint64_t tokens() const { return starts_.back(); }
  uint64_t shard_start(size_t shard) const { return starts_[shard]; }
  size_t shard_of(uint64_t token) const;
  ShardSource& source() const { return *source_; }
  void read(uint64_t first, std::span<int32_t> out) const;  // all within [0, tokens())
  // Stream positions, ascending, of the documents that start in [first, first + count).
  void document_starts(uint64_t first, uint64_t count, std::vector<uint64_t>& out) const;
  void will_read(uint64_t first, uint64_t count) const;

 private:
  template <typename Body>
  void each_shard(uint64_t first, uint64_t count, Body&& body) const;
  std::vector<uint64_t> starts_;  // of each shard, and the end
  std::vector<std::string> names_;
  int64_t vocabulary_;
  std::unique_ptr<ShardSource> source_;
};

}  // namespace stoker::data
