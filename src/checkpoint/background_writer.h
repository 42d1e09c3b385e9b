// checkpoint/background_writer.h
// Saves a checkpoint beside the training. start() lends the tensors and returns at once; a thread writes them
// from where they lie; before the trainer changes any of them it calls before_update(), which copies what is
// not written yet.
//     writer.start(tensors, state, attachments);
//     ... forward, backward (tensors only read) ...
//     writer.before_update();                    // returns at once when everything is written
//     optimizer.step();
//     if (auto done = writer.poll()) report(*done);
// Stall          start(): microseconds, unless the save before it still runs. before_update(): the copy of the rest at worst, at
//                memory speed on all compute threads; nothing waits for the disk, unless more than staging_limit is left
// Memory         4 MB; from before_update() until the end of the save also a copy of what was left (up to all)
// Atomic         the checkpoint exists when its marker does (store.h): killed or out of power at any moment, the ones before stay
// Failure        a Storage error is tried again with growing pauses (an fsync is not: after it failed the kernel may have dropped
//                the data). Then the save is given up, its files are removed, and the outcome carries the error; the training and
//                the older checkpoints are untouched, and the next start() begins afresh
// Several ranks  each has its own writer (writer w of n) and saves the rows it owns; after wait() on all of them one rank calls
//                Store::commit. A single writer commits and prunes by itself
// Threads        all functions from the training thread
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "checkpoint/store.h"
#include "io/safetensors.h"
#include "tensor/buffer.h"

namespace stoker::checkpoint {

// A tensor that is lent: whole, or as the rows [first_row, first_row + tensor.shape[0]) of a tensor of
// whole_rows rows.
struct TensorToSave {
  std::string name;
  TensorView tensor;
  Part part = Part::kWeights;
  int64_t first_row = 0;
  int64_t whole_rows = -1;  // -1: the tensor is whole
};

// A small file that belongs to the checkpoint (tokenizer.json); plain name.
struct Attachment {
  std::string name, contents;
};

struct WriterOptions {
  int writer = 0, writers = 1;
  int tries = 6;  // of one operation
  double first_pause_s = 1, longest_pause_s = 30;
  uint64_t staging_limit_bytes = ~uint64_t{0};
};

struct SaveOutcome {
  int64_t step = 0;
  std::string directory;
  std::optional<Error> error;  // none: durable (and committed, if there is one writer)
  Hash128 weights_hash;        // one writer only
  uint64_t bytes = 0;          // of tensors
  double seconds = 0;          // from start() to the end, beside the training
  double stall_s = 0;          // the training thread spent in start() and before_update()
  uint64_t staged_bytes = 0;   // copied by before_update()
  int retries = 0;
};

class BackgroundWriter {
 public:
  BackgroundWriter(Store& store, WriterOptions options = {}, Clock& clock = system_clock());
  ~BackgroundWriter();  // finishes the save in progress without pauses between tries
  BackgroundWriter(const BackgroundWriter&) = delete;

  // Waits for the save before it, whose outcome wait()/poll() must have collected or is dropped. Usage: a
  // tensor's name or an attachment's name is used twice.
  void start(std::vector<TensorToSave> tensors, const TrainingState& state,
             std::vector<Attachment> attachments = {});
  void before_update();
  // Gives the save in progress up: it ends after the block that is being written, with an error as its outcome.
  void abandon();
  bool busy() const;
  std::optional<SaveOutcome> poll();  // the outcome, once, when a save has ended
  std::optional<SaveOutcome> wait();  // waits for it; none when nothing was started since the last outcome

 private:
  struct Save;
  void run(Save& save);
  void write_everything(Save& save);
  void write_part(Save& save, Part part, WriterIndex& index);
  void write_piece(Save& save, io::SafetensorsWriter& file, size_t tensor, Piece& piece);
  uint64_t fetch(Save& save, size_t tensor, uint64_t offset, std::byte* to);
  void write_small_file(Save& save, const std::string& name, std::string_view contents);
  bool stage_rest(Save& save);  // false: no memory
  void clean_up(Save& save) noexcept;
  template <typename F>
  auto retrying(Save& save, F&& f);

  Store& store_;
  WriterOptions options_;
  Clock& clock_;
  mutable std::mutex mutex_;
  std::condition_variable progress_;
  bool hurry_ = false, abandoned_ = false;
  std::unique_ptr<Save> save_;  // in progress, or ended and not collected
  std::thread thread_;
};

}  // namespace stoker::checkpoint
