// data/corpus/factory_tally.h
// What a build counts while it writes, and report.json made of it: documents and tokens by source, label and language, drop reasons with
// samples, duplicates by source, histograms of the signals.
// Determinism  the samples of a reason are those with the smallest hashes: the same for any order of chunks
// Threads      sample() and keep_candidates() from any thread; the rest from one
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus/factory_build.h"
#include "data/corpus/factory_corpus.h"

namespace stoker::corpus {

// The beginning of what was dropped, or why it could not be read.
struct Sample {
  uint64_t order = 0;
  uint32_t document = 0;
  std::string text;
};

// "source/file#record", as UTF-8
std::string document_id(const Recipe& recipe, const Corpus& corpus, uint32_t document);

class CorpusTally {
 public:
  CorpusTally(const Recipe& recipe, const Corpus& corpus);
  Sample sample(uint32_t document, std::string_view text) const;
  // The few of a chunk that may be among the samples of the whole.
  void keep_candidates(std::vector<Sample>& of_chunk) const;

  void kept(uint32_t document, uint64_t text_bytes, uint64_t tokens);  // once, whatever its copies
  void dropped(uint32_t document, uint64_t text_bytes);
  void add_samples(std::vector<Sample> candidates);
  // result: the counts of the whole build.
  nlohmann::ordered_json report(const BuildResult& result) const;

 private:
  struct Counted {
    uint64_t documents = 0, text_bytes = 0, tokens = 0;
    void add(uint64_t bytes, uint64_t n, uint64_t copies) {
      documents += copies;
      text_bytes += bytes * copies;
      tokens += n * copies;
    }
  };
  static nlohmann::ordered_json counted(const std::vector<std::string>& names,
                                        const std::vector<Counted>& counts);
  nlohmann::ordered_json report_reasons() const;
  void report_sources(nlohmann::ordered_json& report) const;
  nlohmann::ordered_json report_signals() const;
  uint32_t reason_of(const Sample& s) const { return corpus_.documents[s.document].reason; }

  const Recipe& recipe_;
  const Corpus& corpus_;
  std::vector<Counted> sources_, labels_, languages_, reasons_;
  std::vector<std::vector<Sample>> samples_;
};

}  // namespace stoker::corpus
