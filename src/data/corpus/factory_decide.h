// data/corpus/factory_decide.h
// Which documents stay: the stages of a segment, in order, over the columns that were computed; no text is read. Every document that
// goes has a reason, every duplicate the one that stays.
// Determinism  a function of contents, names and recipe; never of threads or of the order in which documents arrived
// Memory       one column of one chunk at a time; duplicates as SpillArray and recipe.memory_bytes say
// Errors       Usage: more labels or documents than a build holds. Cancelled on request. ArtifactLost as factory_columns.h
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/stop.h"
#include "data/corpus/dedup_documents.h"
#include "data/corpus/factory_columns.h"
#include "data/corpus/factory_timing.h"

namespace stoker::corpus {

class DocumentDecisions {
 public:
  DocumentDecisions(const StageContext& context, const ChunkColumns& columns, Corpus& corpus,
                    Stopwatch& watch);
  // All labels there can be, in order of appearance: sources, then stages.
  void name_labels();
  // Once the chunks are known: numbers the documents and finds those that have no text. Returns the bytes of all texts.
  uint64_t number_documents();
  void decide(size_t begin, size_t end);
  // Copies by the sources' weights.
  void decide_weights();

  // Calls each(chunk, place in it, key) for the documents still in at stage s of the segment from `begin`.
  template <typename Each>
  void for_each_survivor(size_t s, size_t begin, Each&& each) const {
    for (const auto& chunk : corpus_.chunks) {
      if (stop_requested()) fail(ErrorKind::kCancelled, "stopped on request; what was computed is kept");
      const auto hashes = columns_.hashes(chunk, columns_.text_at(chunk.segment, begin, s));
      for (uint32_t i = 0; i < chunk.documents; ++i)
        if (corpus_.documents[chunk.first + i].reason == 0) each(chunk, i, key_of(s, chunk, i, hashes[i]));
    }
  }

 private:
  uint32_t reason(const std::string& name);
  uint32_t reason(size_t stage, const std::string& what);
  uint32_t label_bit(const std::string& label) const;
  uint16_t language_number(const char* code);
  template <typename Row, typename Each>
  void for_each_row(size_t stage, size_t begin, Each&& each);
  void decide_stage(size_t s, size_t begin);
  void decide_language(size_t s, size_t begin);
  void decide_quality(size_t s, size_t begin);
  void decide_label(size_t s, size_t begin);
  void decide_contamination(size_t s, size_t begin);
  void decide_duplicates(size_t s, size_t begin);
  SpillArray<DuplicateVerdict> find_exact(size_t s, size_t begin, SpillArray<uint32_t>& ordinals) const;
  SpillArray<DuplicateVerdict> find_near(size_t s, size_t begin, SpillArray<uint32_t>& ordinals) const;
  void drop_emptied();
  DocumentKey key_of(size_t s, const CorpusChunk& chunk, uint32_t i, const HashRow& hash) const;

  const StageContext& context_;
  const Recipe& recipe_;
  const ChunkColumns& columns_;
  Corpus& corpus_;
  Stopwatch& watch_;
  std::map<std::string, uint32_t> reasons_;
};

// Where a table of a build spills to, and its share of the memory.
SpillBudget spill_budget(const Recipe& recipe, std::string_view what);

}  // namespace stoker::corpus
