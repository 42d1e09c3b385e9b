// data/corpus/build_shards.h
// `stoker data prepare`: files -> documents -> a trained or given tokenizer -> shards and a manifest, in one
// go. Split         a document is held out when the hash of its text falls below the fraction: the same text
// is always on the same
//               side, wherever it stands. The tokenizer is trained on the other side only
// Order         documents keep the order of the sources; any number of threads writes the same bytes
// Again         when `out` already is what these inputs and settings give, nothing is done (unchanged = true)
// Memory        bounded by threads x (8 loads), see document_reader.h; training: by the number of distinct
// words Errors        Usage: nothing to read, out exists. Data: more bad records than the budget. Cancelled:
// stop requested. Nothing
//               half-written stays
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/hash.h"
#include "data/corpus/document_reader.h"
#include "data/corpus/document_source.h"
#include "io/file_system.h"

namespace stoker::corpus {

inline constexpr const char* kTrainSplit = "train";
inline constexpr const char* kHeldOutSplit = "held_out";

struct PrepareOptions {
  std::vector<std::string> inputs;
  std::string out;
  std::optional<SourceFormat> format;
  std::string tokenizer;  // a file; empty: train one
  std::string split_pattern = "llama3";
  int32_t vocabulary = 32768;     // to train
  uint32_t held_out_ppm = 10000;  // documents per million
  uint64_t split_seed = 0;
  std::string bos;  // a token's text; empty: none
  ReadOptions read;
  std::optional<uint64_t> max_bad;  // bad records allowed; default: 1 % of the records so far, at least 10
  uint64_t shard_bytes = uint64_t{1} << 30;
  bool replace = false;
  int threads = 0;  // 0: all
};

struct PrepareReport {
  Hash128 version;
  bool unchanged = false;
  uint64_t files = 0, left_out = 0, stored_bytes = 0;
  uint64_t documents = 0, text_bytes = 0, tokens = 0, empty = 0, bad = 0;
  int32_t vocabulary = 0;
  double train_s = 0, encode_s = 0;    // both include reading
  std::vector<std::string> first_bad;  // the first few, as file:line: reason
};

PrepareReport prepare(io::FileSystem& fs, const PrepareOptions& options);

}  // namespace stoker::corpus
