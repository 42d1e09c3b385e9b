// data/shard/pack_plan.h
// A packing plan: which pieces of which documents make up each row of a fixed length, so that documents are cut only when they are
// longer than a row. An artifact beside a dataset, made once, bound to the dataset's version:
//   <name>.plan.json                what the plan is, by content hash of its parts; its own hash is the plan's version
//   <name>_<shard>.rows             one per shard; rows never mix shards, so a plan of any size is read a shard at a time
//     0 magic "STKROWS\0" | 8 u64 version 1 | 16 u64 row length | 24 u64 R rows | 32 u64 P pieces | 40 u64 tokens of the shard
//     48 u32[R + 1] first piece of each row | then P pieces of 16 bytes: u64 first token, u32 tokens, u32 document (in the shard)
// Pieces        of predicted tokens: cell t of a piece shows stream token first - 1 + t and predicts first + t; the first token of a
//               document that begins with BOS (or follows no EOD) is given, not predicted, and is in no piece. Every predicted token of
//               every document that the filter keeps is in exactly one piece
// Windows       documents are packed in runs of about window_tokens tokens, whose rows follow one another: neighbouring rows lie near
//               each other in the shard, which matters where shards are fetched from afar (sample_order.h)
// Filter        documents may be left out by length, source or text hash (removal requests): a plan over the rest
// Cost          building: O(documents log length); of memory 60 bytes per document of a window, the rest in temporary files beside the
//               plan (record_log.h). Reading a row: one lookup
// Errors        Data: names the file, what was expected and what was found. Usage: no such plan, a plan of another dataset
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/shard/dataset.h"

namespace stoker::data {

struct PackedPiece {
  uint64_t first_token = 0;  // of the shard's stream
  uint32_t tokens = 0;
  uint32_t document = 0;  // within the shard
  bool operator==(const PackedPiece&) const = default;
};

// A view of a .rows file that somebody else keeps alive.
class PackRows {
 public:
  static PackRows parse(std::span<const std::byte> bytes, std::string file);
  uint64_t length() const { return length_; }
  uint64_t rows() const { return rows_; }
  uint64_t pieces() const { return pieces_; }
  uint64_t shard_tokens() const { return shard_tokens_; }
  // Appends the pieces of a row: checked to lie in the shard and to fit into the row together.
  void row(uint64_t row, std::vector<PackedPiece>& out) const;
  // The rows that predict any of the shard's tokens [first, first + count), ascending. One pass over the file.
  std::vector<uint64_t> rows_with(uint64_t first, uint64_t count) const;

 private:
  uint32_t first_piece(uint64_t row) const;
  PackedPiece piece(uint64_t i) const;
  std::span<const std::byte> bytes_;
  std::string file_;
  uint64_t length_ = 0, rows_ = 0, pieces_ = 0, shard_tokens_ = 0;
};
struct PackShard {
  uint64_t rows = 0, pieces = 0, tokens = 0;
  FileRecord file;
  bool operator==(const PackShard&) const = default;
};

struct PackPlanManifest {
  Hash128 dataset;
  std::string split;
  uint64_t length = 0, window_tokens = 0;
  uint64_t rows = 0, pieces = 0, tokens = 0;  // sums over shards; tokens: predicted ones
  uint64_t documents = 0, documents_cut = 0, documents_left_out = 0;
  std::string filter = "{}";  // canonical JSON: what was left out and why
  std::vector<PackShard> shards;
  bool operator==(const PackPlanManifest&) const = default;

  std::string to_json() const;  // canonical
  Hash128 hash() const { return hash128(to_json()); }
  double padding() const;  // share of cells that show nothing
  static PackPlanManifest parse(std::string_view json, std::string_view file);
};

std::string default_plan_name(std::string_view split, uint64_t length);  // "pack-2048-train"
std::string plan_path(const Dataset& dataset, std::string_view name);
// Usage: there is none, naming the command that makes it; another dataset's, or another split's.
PackPlanManifest open_pack_plan(io::FileSystem& fs, const Dataset& dataset, const std::string& name,
                                const std::string& split);

struct PackOptions {
  uint64_t window_tokens = uint64_t{1} << 23;
  std::function<bool(const DocumentOrigin&, uint64_t tokens)> keep;  // empty: all documents
  std::string filter = "{}";                                         // what `keep` is, as JSON
};
// Writes the plan into the dataset's directory; the manifest last, each file atomically. An existing plan of that name is replaced.
PackPlanManifest build_pack_plan(io::FileSystem& fs, const Dataset& dataset, const std::string& split,
                                 const std::string& name, uint64_t length, const PackOptions& options = {},
                                 const std::function<void(uint64_t)>& on_documents = {});
// Every fault of the plan's files; empty: they are as written and every row is sound.
std::vector<std::string> verify_pack_plan(io::FileSystem& fs, const Dataset& dataset,
                                          const std::string& name);

// Whether a dataset's documents are separated by a token that stands before each of them in the stream (EOD without BOS): then all
// their tokens are predicted, otherwise all but the first.
inline bool predicts_first_token(const Manifest& manifest) {
  return manifest.tokenizer.bos < 0 && manifest.tokenizer.eod >= 0;
}

}  // namespace stoker::data
