// data/corpus/factory_output.h
// The decided corpus -> a version directory: documents, what was dropped and why, what could not be read, a report, and
// tokens. Written under a temporary name and renamed when complete.
// Determinism  every byte is a function of inputs and recipe; no times, paths of the machine or thread order
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/corpus/factory_artifacts.h"
#include "data/corpus/factory_build.h"
#include "data/corpus/factory_inputs.h"
#include "data/corpus/factory_stages.h"
#include "io/file_system.h"

namespace stoker::corpus {

struct PlaceRow {
  uint32_t file, bad;
  uint64_t record;
};

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

// Of one signal over the documents that came to a quality stage: shares in 20 equal bins, counts in powers of two.
struct SignalHistogram {
  std::array<uint64_t, 24> all{}, dropped{};
};

struct Corpus {
  const Recipe* recipe = nullptr;
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

int histogram_bin(int signal, float value);

// Hash of everything the output depends on; the version is its first 16 digits.
Hash128 corpus_version(const StageContext& context, const Corpus& corpus, Hash128 tokenizer);

void write_corpus(io::FileSystem& fs, const StageContext& context, const ArtifactStore& store,
                  const Corpus& corpus, int threads, BuildResult& result);

}  // namespace stoker::corpus
