// io/memory_file_system.h
// A file system in memory with a model of durability: every file and directory has what a reader sees and
// what would survive a power loss. crash() drops to the second, in the hardest way that POSIX allows:
//   kLoseUnsynced   all that was not synced is gone (contents to the last sync(), names to the last sync_dir())
//   kMix            each unsynced name and file independently survives, is lost, or (contents) is torn at a
//                   random place, by seed
// capacity_bytes: a write beyond it is ENOSPC. For tests; thread-safe.
#pragma once
#include <map>
#include <mutex>

#include "io/file_system.h"

namespace stoker::io {

class MemoryFileSystem final : public FileSystem {
 public:
  enum class Crash { kLoseUnsynced, kMix };

  explicit MemoryFileSystem(uint64_t capacity_bytes = ~uint64_t{0});
  void crash(Crash how, uint64_t seed = 0);
  // Damage for tests: flips one bit, or shortens. Both at once durable.
  void flip_bit(const std::string& path, uint64_t byte, int bit = 0);
  void truncate(const std::string& path, uint64_t size);

  std::unique_ptr<ReadableFile> open_read(const std::string& path, Access access = Access::kNormal) override;
  std::unique_ptr<WritableFile> create(const std::string& path) override;
  std::unique_ptr<WritableFile> open_append(const std::string& path) override;
  bool exists(const std::string& path) override;
  FileInfo info(const std::string& path) override;
  std::vector<std::string> list(const std::string& directory) override;
  void make_dirs(const std::string& directory) override;
  void rename(const std::string& from, const std::string& to) override;
  void remove(const std::string& path) override;
  void sync_dir(const std::string& directory) override;
  uint64_t free_bytes(const std::string& path) override;

 private:
  friend class MemoryWritable;
  struct Node {
    bool directory = false;
    std::string bytes, durable_bytes;
    std::map<std::string, std::shared_ptr<Node>> names, durable_names;
  };
  using NodePtr = std::shared_ptr<Node>;

  NodePtr find(const std::string& path) const;  // null: nothing there
  NodePtr need(const std::string& operation, const std::string& path) const;
  Node& parent_node(const std::string& operation, const std::string& path) const;
  NodePtr open_for_writing(const std::string& path, bool append);
  void write(Node& node, const std::string& path, uint64_t offset, const void* data, size_t bytes);
  uint64_t used_bytes(const Node& node) const;

  mutable std::mutex mutex_;
  NodePtr root_;
  uint64_t capacity_bytes_;
};

}  // namespace stoker::io
