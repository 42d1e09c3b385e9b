// data/corpus/factory_map.h
// The computing passes of a build: records become chunks of text, chunks become transformed texts and columns. What is in the work
// directory already is not made again.
// Threads      pieces and chunks are worked on side by side; chunks are numbered in the order of the inputs
// Determinism  what is made is a function of inputs and recipe, for any number of threads
// Errors       as OrderedWork; ArtifactLost as factory_columns.h
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "data/corpus/factory_columns.h"
#include "data/corpus/factory_timing.h"
#include "io/file_system.h"

namespace stoker::corpus {

class ChunkMapper {
 public:
  ChunkMapper(io::FileSystem& fs, const StageContext& context, const ArtifactStore& store,
              const ChunkColumns& columns, Corpus& corpus, Stopwatch& watch, int threads);
  // Reads the corpus's inputs and computes the first segment, stages [0, end). Both return how many chunks had something to compute.
  uint64_t ingest(size_t end);
  // Computes a later segment from texts that are there.
  uint64_t map_segment(size_t begin, size_t end);

 private:
  struct Work;
  struct Done;
  class WorkList;
  std::optional<std::vector<CorpusChunk>> recall(uint32_t batch) const;
  Done open(Work work, size_t end) const;
  CorpusChunk open_piece(uint32_t batch, BatchReader::Piece piece, std::vector<ChunkDocument>& documents,
                         bool& fresh) const;
  bool map_chunk(Hash128 base, size_t begin, size_t end, std::vector<ChunkDocument>* at_hand) const;

  io::FileSystem& fs_;
  const StageContext& context_;
  const Recipe& recipe_;
  const ArtifactStore& store_;
  const ChunkColumns& columns_;
  Corpus& corpus_;
  Stopwatch& watch_;
  int threads_;
};

}  // namespace stoker::corpus
