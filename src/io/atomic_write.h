// io/atomic_write.h
// A file or directory that exists completely or not at all, also after a crash or power loss
// at any moment: written under a temporary name beside the target, synced, renamed, parent
// synced.
// Names   the temporary name is "<target>.tmp-<process id>-<counter>" in the same directory (a
//         rename never crosses file systems); what a killed process left behind
//         is_temporary_name() recognises
// Errors  Storage/Usage from the file system; the temporary is then removed as far as possible
//         and an existing target is untouched. An error of the last step (parent sync) leaves
//         the new target in place, its durability unknown
#pragma once
#include <string>
#include <string_view>

#include "io/file_system.h"

namespace stoker::io {

void write_file_atomic(FileSystem& fs, const std::string& path, std::string_view contents);

bool is_temporary_name(std::string_view name);

// For contents that are streamed. Without commit() the destructor removes the temporary.
class AtomicFile {
 public:
  AtomicFile(FileSystem& fs, std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  WritableFile& file() { return *file_; }
  void commit();

 private:
  FileSystem& fs_;
  std::string path_, temporary_;
  std::unique_ptr<WritableFile> file_;
  bool done_ = false;
};

// Files written under staging() must be synced by their writers (WritableFile::sync); directories below it
// too. An existing directory of the target's name: Usage (a directory cannot be replaced atomically).
class AtomicDirectory {
 public:
  AtomicDirectory(FileSystem& fs, std::string path);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  const std::string& staging() const { return temporary_; }
  void commit();

 private:
  FileSystem& fs_;
  std::string path_, temporary_;
  bool done_ = false;
};

}  // namespace stoker::io
