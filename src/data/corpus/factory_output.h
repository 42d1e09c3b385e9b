// data/corpus/factory_output.h
// The decided corpus -> a version directory: documents, what was dropped and why, what could not be read, a report, and
// tokens. Written under a temporary name and renamed when complete.
// Determinism  every byte is a function of inputs and recipe; no times, paths of the machine or thread order
#pragma once
#include "data/corpus/factory_artifacts.h"
#include "data/corpus/factory_build.h"
#include "data/corpus/factory_corpus.h"
#include "data/corpus/factory_stages.h"
#include "io/file_system.h"

namespace stoker::corpus {

// Hash of everything the output depends on; the version is its first 16 digits.
Hash128 corpus_version(const StageContext& context, const Corpus& corpus, Hash128 tokenizer);

// What writing would fail for only at the end of a long build: a tokenizer that is not there, or has no token that ends documents.
void check_output(const Recipe& recipe);

// Fills in what result says about the output.
void write_corpus(io::FileSystem& fs, const StageContext& context, const ArtifactStore& store,
                  const Corpus& corpus, int threads, BuildResult& result);

}  // namespace stoker::corpus
