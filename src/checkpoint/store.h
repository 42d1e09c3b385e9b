// checkpoint/store.h
// A directory of checkpoints: <directory>/step-00000120/ ... Committed ones are listed, the rest is
// invisible. Keeping       prune() keeps the newest keep_last committed ones and the pinned; what an
// interrupted save left is removed Again         a step that is saved again gets a new directory
// (step-00000120-r1): the old one stays until the new is committed Errors        Usage: nothing there. Data:
// the newest is damaged; the message offers an older one. Storage
#pragma once
#include <functional>
#include <limits>

#include "checkpoint/checkpoint.h"

namespace stoker::checkpoint {

struct Listed {
  int64_t step = 0;
  int revision = 0;
  std::string directory;
  bool pinned = false;
};

class Store {
 public:
  Store(io::FileSystem& fs, std::string directory, int keep_last = 3);
  io::FileSystem& file_system() const { return *fs_; }
  const std::string& directory() const { return directory_; }

  std::vector<Listed> list() const;  // committed, ascending by step; of a step saved again only the newest
  std::optional<Listed> latest() const;
  // The newest committed checkpoint, opened. `full_check` reads every byte first.
  Checkpoint open_latest(bool full_check = false) const;
  std::optional<Listed> find(int64_t step) const;

  void pin(int64_t step);
  void unpin(int64_t step);
  void prune(
      int64_t up_to = std::numeric_limits<int64_t>::max());  // later steps may be in the making: left alone
  // After a roll-back: checkpoints of steps beyond `step` belong to a past that did not happen.
  void discard_after(int64_t step);
  void add_replay_record(int64_t checkpoint_step, const ReplayRecord& record);

  // For writers. All writers of one save look before any of them commits, so they agree on the directory.
  std::string directory_for_save(int64_t step) const;
  // Of a save whose files are all durable, before its commit; read from the files. on_read is told bytes and may throw.
  Hash128 weights_hash(const std::string& checkpoint_directory, int writers,
                       const std::function<void(uint64_t)>& on_read) const;
  // Called once, when the files of all writers are durable: reads the indices, checks that together they hold
  // every row of every tensor once, and writes the marker. weights_hash: computed from the files when not
  // given.
  Commit commit(const std::string& checkpoint_directory, int64_t step, int writers,
                const std::vector<std::string>& attachments, std::optional<Hash128> weights_hash,
                double unix_s);

 private:
  bool committed(const std::string& checkpoint_directory) const;
  void remove(const std::string& checkpoint_directory);

  io::FileSystem* fs_;
  std::string directory_;
  int keep_last_;
};

// The checkpoint that a path means: a checkpoint's own directory, a store (its newest), or a run's directory
// (its `checkpoints`).
std::string resolve_checkpoint(io::FileSystem& fs, const std::string& path);

}  // namespace stoker::checkpoint
