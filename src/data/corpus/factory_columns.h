// data/corpus/factory_columns.h
// Where the texts and columns of chunks lie in the work directory: a text's key says which transforms it went through, a column's key
// which text it is about. Nothing here computes them (factory_map.h does).
// Segments  stages [begin, end) between two stages that look at the whole corpus; their first text is the chunk's `segment`
// Errors    ArtifactLost: what should be there is not, or was damaged and is gone; the build goes round once more
// Threads   any, after distrust()
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus/factory_artifacts.h"
#include "data/corpus/factory_corpus.h"
#include "data/corpus/factory_stages.h"

namespace stoker::corpus {

// Of each document of a chunk as it was read.
struct PlaceRow {
  uint32_t file, bad;
  uint64_t record;
};

struct NeededColumn {
  Hash128 text;
  ColumnSpec column;
  Hash128 key() const { return KeyBuilder("column/1").add(text).add(column.key).key(); }
};

class ChunkColumns {
 public:
  ChunkColumns(const StageContext& context, const ArtifactStore& store) : context_(context), store_(store) {}
  // Look into every file before it counts as present.
  void distrust() { verify_ = true; }
  bool present(std::string_view kind, Hash128 key) const {
    return verify_ ? store_.get(kind, key).has_value() : store_.has(kind, key);
  }

  // The text behind a transform stage.
  Hash128 transformed(Hash128 text, size_t stage) const;
  // The text that stage `end` sees when the segment began with `base` at stage `begin`.
  Hash128 text_at(Hash128 base, size_t begin, size_t end) const;
  // The columns that deciding [begin, end) asks for, each once.
  std::vector<NeededColumn> needed(Hash128 base, size_t begin, size_t end) const;

  std::string fetch(std::string_view kind, Hash128 key) const;
  std::vector<ChunkDocument> documents(Hash128 text) const { return decode_chunk(fetch("text", text)); }
  std::string column(const CorpusChunk& chunk, Hash128 text, const ColumnSpec& column) const;
  std::string places(const CorpusChunk& chunk) const;
  template <typename Row>
  std::vector<Row> rows(const CorpusChunk& chunk, Hash128 text, const ColumnSpec& spec) const {
    return rows_of<Row>(column(chunk, text, spec));
  }
  std::vector<HashRow> hashes(const CorpusChunk& chunk, Hash128 text) const {
    return rows<HashRow>(chunk, text, StageContext::hash_column());
  }
  template <typename Row>
  static std::vector<Row> rows_of(const std::string& bytes) {
    std::vector<Row> out(bytes.size() / sizeof(Row));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(Row));
    return out;
  }

 private:
  std::string sized(std::string_view kind, Hash128 key, uint64_t bytes) const;
  const StageContext& context_;
  const ArtifactStore& store_;
  bool verify_ = false;
};

}  // namespace stoker::corpus
