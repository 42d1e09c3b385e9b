// data/corpus/factory_inputs.h
// The files of a recipe's sources, cut into batches: a run of small files, or one large file. Where a batch ends depends
// on names and sizes nearby only, so that a new file changes the batches around it and no others.
// Far       paths may be s3://bucket/prefix (all below it), s3:// or http(s):// objects, where `fs` reads them (io/object_store.h)
// Order     sources as in the recipe, paths as given, folders by name (bytes); part of the dataset's identity
// Errors    Usage: nothing at a path
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/corpus/compressed_input.h"
#include "data/corpus/factory_artifacts.h"
#include "data/corpus/factory_recipe.h"
#include "data/corpus/factory_records.h"

namespace stoker::corpus {

struct InputFile {
  uint32_t source = 0;
  std::string path, name, format;  // name: relative to the folder it was found in
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  uint64_t inode = 0;
};

struct InputBatch {
  std::vector<InputFile> files;
  bool large = false;  // one file, read in pieces
};

struct InputList {
  std::vector<InputBatch> batches;
  uint64_t files = 0, bytes = 0, left_out = 0;
};

InputList list_inputs(io::FileSystem& fs, const Recipe& recipe);

// The name under which a batch's chunks are remembered: paths, sizes, times and inodes of its files and how they are read.
Hash128 batch_key(const Recipe& recipe, const InputBatch& batch);

// The records of a batch in pieces of about recipe.chunk_bytes, one after another.
class BatchReader {
 public:
  BatchReader(io::FileSystem& fs, const Recipe& recipe, const InputBatch& batch);
  ~BatchReader();
  struct Piece {
    std::vector<uint32_t> files;  // of each record: its index in the batch
    std::vector<RawRecord> records;
    uint64_t bytes = 0;
    bool passing =
        false;  // a file could not be opened, which says nothing about it: another run must look again
  };
  std::optional<Piece> next();
  uint64_t stored_done() const { return stored_done_; }

 private:
  std::unique_ptr<RecordReader> open(const InputFile& file);
  template <typename Open>
  auto opening(Open&& open);
  io::FileSystem& fs_;
  const Recipe& recipe_;
  const InputBatch& batch_;
  uint32_t file_ = 0;
  uint64_t stored_done_ = 0;
  bool unopened_ = false;
  std::unique_ptr<CompressedInput> input_;
  std::unique_ptr<RecordReader> reader_;
};

// Decoding, HTML extraction, JSON: what a record says as text. Pure.
ChunkDocument open_record(RawRecord record, uint32_t file, const SourceRecipe& source);
// What open_record depends on beside the record.
std::string open_key(const SourceRecipe& source);

}  // namespace stoker::corpus
