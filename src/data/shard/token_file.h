// data/shard/token_file.h
// One shard: <name>.bin with bare tokens and <name>.idx that says where documents lie, as Megatron-LM writes and reads them;
// beside them <name>.docs (document_table.h) and <name>.sums (block_sums.h), which Megatron ignores.
// Determinism  the same documents in the same order give the same bytes
// Cost         writing: one pass, about 2 MiB of buffers however many documents (record_log.h). Opening: O(1), mapped, nothing read
// Errors       Usage: a token outside the vocabulary that the type can hold is our caller's bug (Internal); Storage and Data as
//              the file system and the parsers say
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/shard/block_sums.h"
#include "data/shard/document_table.h"
#include "data/shard/manifest.h"
#include "data/shard/record_log.h"
#include "data/shard/token_index.h"
#include "io/file_system.h"

namespace stoker::data {

// Writes into a directory that the caller makes atomic (io::AtomicDirectory). Everything is synced by
// finish().
class ShardWriter {
 public:
  ShardWriter(io::FileSystem& fs, std::string directory, std::string name, TokenType type);
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  void add(std::span<const int32_t> tokens, const DocumentOrigin& origin);
  uint64_t tokens() const { return tokens_; }
  uint64_t documents() const { return documents_.size(); }
  ShardRecord finish();

 private:
  struct Document {
    DocumentOrigin origin;
    int32_t tokens;
  };
  void flush();
  template <typename Fill>
  FileRecord write_beside(const std::string& extension, Fill&& fill);
  io::FileSystem& fs_;
  std::string directory_, name_;
  TokenType type_;
  std::unique_ptr<io::WritableFile> bin_;
  std::vector<std::byte> buffer_;
  Hasher hasher_;
  BlockSummer summer_;
  RecordLog<Document> documents_;
  uint64_t tokens_ = 0, text_bytes_ = 0;
};

// An open shard: its index mapped, tokens read where they are asked for (a file that goes away is then a Storage error and no signal,
// and nothing of a far one is fetched in vain). Thread-safe.
class TokenFile {
 public:
  // Checks in O(1) that the last sequence of the index ends where the .bin does; TokenIndex::check() does the
  // rest.
  TokenFile(io::FileSystem& fs, const std::string& bin_path, const std::string& idx_path);
  const TokenIndex& index() const { return index_; }
  uint64_t tokens() const { return tokens_; }
  void read(uint64_t first, std::span<int32_t> out) const;  // first + out.size() <= tokens(), else Internal
  // The sequence that holds token `token`: O(log sequences). Empty sequences hold none. Data if the pointers
  // are wild.
  uint64_t sequence_of(uint64_t token) const;
  uint64_t first_token(uint64_t sequence) const { return index_.first_token(sequence, tokens_); }
  uint64_t document_start(uint64_t document) const { return index_.document_start(document, tokens_); }
  uint64_t document_of(uint64_t token) const { return index_.document_of(token, tokens_); }
  const io::ReadableFile& bin() const { return *bin_; }

 private:
  std::unique_ptr<io::ReadableFile> bin_, idx_;
  TokenIndex index_;
  uint64_t tokens_ = 0;
};

// Widens `count` tokens of `type` that lie unaligned at `from`.
void widen_tokens(TokenType type, const std::byte* from, std::span<int32_t> out);

}  // namespace stoker::data
