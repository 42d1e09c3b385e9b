// data/corpus/factory_corpus.h
// What a build knows of its documents: files, chunks and documents in the order of the inputs, one small row a document. Texts and
// columns lie in the work directory under the keys that the chunks carry (factory_columns.h).
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/hash.h"
#include "data/corpus/factory_inputs.h"
#include "data/corpus/signal_histogram.h"
#include "data/corpus/spill_array.h"

namespace stoker::corpus {

struct CorpusChunk {
  uint32_t batch = 0, documents = 0;
  uint64_t first = 0;  // ordinal of its first document
  Hash128 raw;         // text as extracted
  Hash128 segment;     // text at the start of the current segment of stages
  Hash128 text;        // text at its end; after the last one: what is written
};

inline constexpr uint32_t kNoDocument = UINT32_MAX;

struct CorpusDocument {
  uint64_t record = 0;
  uint32_t file = 0;    // of all files in order
  uint32_t reason = 0;  // 0: kept
  uint32_t matched = 0;
  uint32_t kept_instead = kNoDocument;  // of a dropped duplicate: the member of its cluster that stays
  float similarity = 0;
  uint32_t labels = 0;  // bit set over Corpus::labels
  uint16_t language = 0;
  uint16_t copies = 1;
};

struct Corpus {
  InputList inputs;
  std::vector<uint32_t> batch_first_file;
  std::vector<const InputFile*> files;
  std::vector<CorpusChunk> chunks;
  SpillArray<CorpusDocument> documents;
  std::vector<std::string> reasons, labels, languages;
  uint32_t quarantine_reason = 0, empty_reason = 0;
  std::map<int, SignalHistogram> histograms;
  uint64_t spans_removed = 0;
};

}  // namespace stoker::corpus
