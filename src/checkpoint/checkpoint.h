// checkpoint/checkpoint.h
// Reads one committed checkpoint: all of a tensor, or any rows of it, however many writers saved it.
// open()   reads and checks the marker, the indices and the state, and that every tensor file has its size; no tensor bytes
// Loading  every block that is touched is compared with its hash before it is handed out
// Threads  load and verify may be called from several threads at once
// Errors   Usage: no committed checkpoint there. Data: damaged; names tensor, file and byte range. Storage: cannot be read
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "checkpoint/record.h"
#include "checkpoint/training_state.h"
#include "io/file_system.h"
#include "tensor/tensor_view.h"

namespace stoker::checkpoint {

struct StoredTensor {
  std::string name;
  Part part = Part::kWeights;
  Dtype dtype = Dtype::kF32;
  Shape shape;
  std::vector<Piece> pieces;  // by first_row; together all rows once
  uint64_t bytes() const;
};

struct Damage {
  std::string tensor, file;        // tensor is empty for damage outside tensors
  uint64_t offset = 0, bytes = 0;  // in the file
  std::string what;
};

class Checkpoint {
 public:
  static Checkpoint open(io::FileSystem& fs, const std::string& directory);

  const std::string& directory() const { return directory_; }
  int64_t step() const { return commit_.step; }
  Hash128 weights_hash() const { return commit_.weights_hash; }
  const Commit& commit() const { return commit_; }
  const TrainingState& state() const { return state_; }
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }  // by name
  const StoredTensor& tensor(const std::string& name) const;                       // Data when there is none
  std::vector<std::string> attachments() const;
  std::string attachment(const std::string& name) const;  // checked against the marker
  std::optional<ReplayRecord> replay_record() const;      // none was written before the process ended

  // `into` has the tensor's dtype and its shape (load), or that many rows of it (load_rows: [begin, end) of
  // dimension 0).
  void load(const std::string& name, TensorView into) const;
  void load_rows(const std::string& name, int64_t begin, int64_t end, TensorView into) const;

  // Reads everything; all damage in the order of files and offsets, empty when every byte is as written.
  // on_bytes is told progress from any thread.
  std::vector<Damage> verify(const std::function<void(uint64_t)>& on_bytes = {}) const;
  uint64_t total_bytes() const { return commit_.tensor_bytes; }
  // Over the bytes of all parameters in name order, read from the files.
  Hash128 compute_weights_hash(const std::function<void(uint64_t)>& on_bytes = {}) const;

 private:
  friend class Store;
  Checkpoint(io::FileSystem& fs, std::string directory) : fs_(&fs), directory_(std::move(directory)) {}
  void add_index(const WriterIndex& index);
  void sort_and_check_coverage();
  std::string read_committed(const CommittedFile& file) const;
  void check_piece(const Piece& piece, std::vector<Damage>& found,
                   const std::function<void(uint64_t)>& on_bytes) const;
  void read_piece(const Piece& piece, uint64_t begin, uint64_t end, std::byte* to) const;

  io::FileSystem* fs_;
  std::string directory_;
  Commit commit_;
  TrainingState state_;
  std::vector<TensorFile> files_;
  std::map<std::string, std::shared_ptr<io::ReadableFile>> open_files_;
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace stoker::checkpoint
