// data/shard/dataset.h
// A dataset on disk: a directory with manifest.json and the files it names.
// Cost          open reads the manifest only; verify reads every byte once, in parallel over files
// Errors        Usage: no dataset there. Data: a file is missing, has another size or other bytes than the
// manifest says
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/shard/document_table.h"
#include "data/shard/manifest.h"
#include "data/shard/token_file.h"
#include "io/file_system.h"

namespace stoker::data {

class Dataset {
 public:
  // `path` is the directory or the manifest file in it.
  static Dataset open(io::FileSystem& fs, const std::string& path);
  const Manifest& manifest() const { return manifest_; }
  Hash128 hash() const { return hash_; }
  const std::string& directory() const { return directory_; }
  io::FileSystem& file_system() const { return *fs_; }
  std::string path_of(const FileRecord& file) const { return io::join(directory_, file.name); }
  std::unique_ptr<TokenFile> open_shard(const ShardRecord& shard) const;
  const SplitRecord& split(std::string_view name) const { return manifest_.split(name, directory_); }

  // Every fault found, in the manifest's order; empty: every byte is as it was written and the indices are
  // sound. on_bytes is told how far it got, from any thread.
  std::vector<std::string> verify(const std::function<void(uint64_t)>& on_bytes = {}) const;
  uint64_t total_bytes() const;

 private:
  io::FileSystem* fs_ = nullptr;
  std::string directory_;
  Manifest manifest_;
  Hash128 hash_;
};

// Where document number `document` of a split lies.
struct DocumentPlace {
  size_t shard = 0;
  uint64_t in_shard = 0;     // document number within the shard
  uint64_t first_token = 0;  // of the split's token stream
  uint64_t tokens = 0;
  DocumentOrigin origin;
};
DocumentPlace locate_document(const Dataset& dataset, io::FileSystem& fs, const SplitRecord& split,
                              uint64_t document);

}  // namespace stoker::data
