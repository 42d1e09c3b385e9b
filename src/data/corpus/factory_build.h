// data/corpus/factory_build.h
// `stoker data build`: sources -> cleaned, labelled, deduplicated documents, as a streaming job that may be killed at any
// moment and goes on where it was.
// Passes      1. map: records are cut into chunks; per chunk the text and what each stage computes about it (signals,
//             language, signatures ...) are kept in the work directory under the hash of what they depend on
//             2. decide: stages in order over those columns; nothing is read again to move a threshold
//             3. a `lines` stage changes the text by what the whole corpus holds: passes 1 and 2 go on behind it
//             4. write: a new version directory, complete or absent, named by the hash of everything it depends on
// Output      <output>/<version>/ documents.jsonl dropped.jsonl quarantine.jsonl report.json report.html
//             and with [shards] tokens/ ; <output>/latest names the newest version
// Determinism same inputs and recipe -> same bytes, for any number of threads, kills and cache contents
// Memory      recipe.memory_bytes for spilling tables and then for the encoder, + per thread four chunks, + the program and its
//             libraries, + 300 bytes a file, + for a packing plan 60 bytes for each document of 8 million tokens (34 MB where documents
//             have 15 tokens). Nothing per document of the corpus: what there is one of for each lies in nameless files
// Errors      Usage: the recipe, missing files. Storage: disk. Cancelled on request. Bad records never end a build: they
//             are in quarantine.jsonl with file, record and reason
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/corpus/factory_recipe.h"
#include "data/corpus/factory_timing.h"
#include "io/file_system.h"

namespace stoker::corpus {

struct DropReason {
  std::string reason;
  uint64_t documents = 0;
};

struct BuildResult {
  std::string version, directory;
  bool up_to_date = false;  // this version was there already
  uint64_t files = 0, left_out = 0, chunks = 0, chunks_computed = 0;
  uint64_t documents_in = 0, documents_out = 0, quarantined = 0;
  uint64_t stored_bytes = 0, text_bytes_in = 0, text_bytes_out = 0;
  uint64_t tokens = 0;
  uint64_t pruned_files = 0, pruned_bytes = 0;
  std::vector<DropReason> reasons;  // the most frequent first
  std::vector<BuildTiming> timings;
  double seconds = 0;
};

// prune: afterwards the work directory holds what this build needed and nothing else.
BuildResult build_corpus(io::FileSystem& fs, const Recipe& recipe, bool prune = false);

}  // namespace stoker::corpus
