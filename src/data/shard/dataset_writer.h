// data/shard/dataset_writer.h
// Writes a dataset so that its directory appears complete or not at all: documents go to the shards of their split in the order
// they are added, the manifest is written last, then the directory gets its name.
// Crash        leaves "<out>.tmp-<process>-<n>" beside the target; the next writer of the same target removes what dead
//              processes left
// Determinism  the same documents, files and settings give the same bytes and the same version
// Errors       Usage: the target exists (unless replace). Storage: as the file system says; nothing half-written stays
// Threads      one at a time
#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "data/shard/manifest.h"
#include "data/shard/token_file.h"
#include "io/atomic_write.h"

namespace stoker::data {

struct DatasetWriterOptions {
  uint64_t shard_bytes = uint64_t{1} << 30;  // a shard is closed when its .bin has reached this
  bool replace = false;                      // an existing dataset is removed once the new one is complete
};

class DatasetWriter {
 public:
  DatasetWriter(io::FileSystem& fs, std::string out, TokenType type, DatasetWriterOptions options = {});
  ~DatasetWriter();
  DatasetWriter(const DatasetWriter&) = delete;

  void declare_split(const std::string& split);  // there even if no document comes
  void add(const std::string& split, std::span<const int32_t> tokens, const DocumentOrigin& origin);
  // A file of the dataset, synced. `extra` files are not named by the manifest and do not touch the version.
  FileRecord add_file(const std::string& name, std::string_view contents);
  // Fills in token_type and splits of `manifest` and makes the dataset appear.
  Manifest commit(Manifest manifest);

 private:
  struct OpenSplit {
    SplitRecord record;
    std::unique_ptr<ShardWriter> shard;
  };
  void close_shard(OpenSplit& split);
  io::FileSystem& fs_;
  std::string out_;
  TokenType type_;
  DatasetWriterOptions options_;
  std::unique_ptr<io::AtomicDirectory> directory_;
  std::map<std::string, OpenSplit> splits_;
};

}  // namespace stoker::data
