// data/shard/manifest.h
// What a dataset is: every file by content hash, what it was made from, with which
// settings, and how much of it there is. The dataset's version is the hash of the
// manifest's canonical form: JSON with keys sorted, no white space, integers only
// (docs/formats/manifest.md). Change one byte of one input, of the tokenizer or of a
// setting, and the version changes.
// Units   tokens as written (separators included); text_bytes are the raw UTF-8 bytes of
//         the documents, so that bits per byte = nats per split / ln 2 / text_bytes
// Errors  Data: names the file and the field, what was expected and what was found. Unknown
//         fields are refused: a manifest from a newer Stoker must not be half understood
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "data/shard/token_index.h"

namespace stoker::data {

struct FileRecord {
  std::string
      name;  // inside the dataset's directory; letters, digits, '_', '-', '.'; empty: there is no such file
  uint64_t bytes = 0;
  Hash128 hash;
  bool operator==(const FileRecord&) const = default;
};

struct ShardRecord {
  uint64_t documents = 0, tokens = 0, text_bytes = 0;
  FileRecord bin, idx;
  FileRecord docs;  // lineage: one record per document (document_table.h)
  FileRecord sums;  // one hash per block of .bin, to verify a part fetched from afar (block_sums.h)
  bool operator==(const ShardRecord&) const = default;
};

struct SplitRecord {
  std::string name;
  uint64_t documents = 0, tokens = 0, text_bytes = 0;  // sums over shards; parse() checks them
  std::vector<ShardRecord> shards;
  bool operator==(const SplitRecord&) const = default;
  void add(ShardRecord shard);
};

struct TokenizerRecord {
  FileRecord file;
  int64_t vocabulary = 0;
  int64_t eod = -1;  // appended to every document; -1: nothing is
  int64_t bos = -1;  // put before every document; -1: nothing is
  bool operator==(const TokenizerRecord&) const = default;
};

struct Manifest {
  TokenType token_type = TokenType::kUint16;
  TokenizerRecord tokenizer;
  FileRecord sources;  // JSON lines, one per input file (docs/formats/manifest.md)
  uint64_t source_files = 0;
  std::string settings = "{}";      // how it was built: a JSON object in canonical form
  std::vector<SplitRecord> splits;  // sorted by name

  bool operator==(const Manifest&) const = default;
  const SplitRecord* find_split(std::string_view name) const;
  const SplitRecord& split(std::string_view name,
                           std::string_view file) const;  // Usage error that lists what there is
  std::string to_json() const;                            // canonical
  Hash128 hash() const { return hash128(to_json()); }
  static Manifest parse(std::string_view json, std::string_view file);
};

inline constexpr std::string_view kManifestName = "manifest.json";

// JSON text in canonical form; Data error if it is no JSON object, holds a fraction or nests deeper than 32.
std::string canonical_json(std::string_view json, std::string_view file);
Hash128 hash_from_hex(std::string_view hex, std::string_view file, std::string_view field);

}  // namespace stoker::data
