// data/corpus/factory_artifacts.h
// The cache that makes a build resumable: immutable files named by the hash of everything they depend on.
//   <work>/<kind>/<2 hex>/<30 hex>      contents | u64 length | u64 high, u64 low XXH3-128 of the contents
// Crash safety   a file appears by rename; it is not synced, because a torn one fails its checksum, is removed, and is
//                made again. Losing the whole directory costs time only
// Threads        any number, also several processes: they write the same bytes
// Errors         Storage: names the file; a full disk leaves nothing half-made behind
#pragma once
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/hash.h"
#include "io/file_system.h"

namespace stoker::corpus {

// Thrown when a file that should be there is not, or was damaged and has been removed: the build goes round once more.
struct ArtifactLost {
  std::string what;
};

class ArtifactStore {
 public:
  ArtifactStore(io::FileSystem& fs, std::string directory);
  bool has(std::string_view kind, Hash128 key) const;
  std::optional<std::string> get(std::string_view kind, Hash128 key) const;  // nullopt: not there, or damaged
  void put(std::string_view kind, Hash128 key, std::string_view contents) const;
  std::string path(std::string_view kind, Hash128 key) const;
  const std::string& directory() const { return directory_; }

  struct Pruned {
    uint64_t files = 0, bytes = 0;
  };
  // Remember from now on what is asked for: about 40 bytes a file.
  void remember_asked() { remembers_ = true; }
  // Removes every file that nobody has asked for since: what other recipes, earlier inputs and killed processes left.
  Pruned prune() const;

 private:
  void asked_for(std::string_view kind, Hash128 key) const;
  io::FileSystem& fs_;
  std::string directory_;
  bool remembers_ = false;
  mutable std::mutex mutex_;
  mutable std::unordered_set<uint64_t> asked_;  // hashes of kind and key; one too many keeps a file
};

// One document of a chunk. `bad` not empty: there is no text, it was put into quarantine.
struct ChunkDocument {
  uint32_t file = 0;  // of the batch
  uint64_t record = 0;
  std::string name, bad, text;
};
std::string encode_chunk(const std::vector<ChunkDocument>& documents);
std::vector<ChunkDocument> decode_chunk(std::string_view bytes);  // Data error when it is none

// A hash of several parts that cannot be confused with one another.
class KeyBuilder {
 public:
  explicit KeyBuilder(std::string_view what) { add(what); }
  KeyBuilder& add(std::string_view part) {
    const uint64_t size = part.size();
    hasher_.update(&size, sizeof size);
    hasher_.update(part);
    return *this;
  }
  KeyBuilder& add(Hash128 h) {
    hasher_.update(&h, sizeof h);
    return *this;
  }
  KeyBuilder& add_number(uint64_t n) {
    hasher_.update(&n, sizeof n);
    return *this;
  }
  Hash128 key() const { return hasher_.digest(); }

 private:
  Hasher hasher_;
};

}  // namespace stoker::corpus
