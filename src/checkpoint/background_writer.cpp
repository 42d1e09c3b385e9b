#include "checkpoint/background_writer.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "base/checked.h"
#include "base/threads.h"

namespace stoker::checkpoint {
namespace {
// Copied under the lock at a time, and hashed as one block: before_update() waits for at most one such copy.
constexpr uint64_t kChunkBytes = kBlockBytes;
constexpr double kSlice_s = 0.05;
}  // namespace

struct BackgroundWriter::Save {
  int64_t step = 0;
  std::string directory, state_json;
  std::vector<TensorToSave> tensors;  // in the order of writing: part, then name
  std::vector<Attachment> attachments;
  std::vector<uint64_t> fetched;         // bytes of each tensor taken so far
  std::vector<const std::byte*> source;  // where the rest of each lies: lent, or staged
  uint64_t left = 0;                     // bytes still to be taken
  uint64_t live = 0;                     // of them, bytes still lent
  Buffer staging;
  std::vector<std::byte> bounce;
  Hasher weights;
  double started_s = 0;
  bool ended = false;
  SaveOutcome outcome;
};

BackgroundWriter::BackgroundWriter(Store& store, WriterOptions options, Clock& clock)
    : store_(store), options_(options), clock_(clock) {
  STOKER_CHECK(options_.writer >= 0 && options_.writer < options_.writers && options_.tries >= 1);
}

BackgroundWriter::~BackgroundWriter() {
  {
    std::lock_guard lock(mutex_);
    hurry_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void BackgroundWriter::start(std::vector<TensorToSave> tensors, const TrainingState& state,
                             std::vector<Attachment> attachments) {
  const double began_s = clock_.now_s();
  if (thread_.joinable()) thread_.join();
  auto save = std::make_unique<Save>();
  save->started_s = began_s;
  save->step = save->outcome.step = state.step;
  save->state_json = to_json(state);
  std::set<std::string> names;
  for (const TensorToSave& t : tensors) {
    if (!names.insert(t.name).second) fail(ErrorKind::kUsage, "two tensors to save are called '{}'", t.name);
    STOKER_CHECK(t.tensor.device.kind == DeviceKind::kCpu, "{} is not in main memory", t.name);
    STOKER_CHECK(t.tensor.data || t.tensor.count() == 0, "{} has no data", t.name);
    STOKER_CHECK(t.whole_rows < 0 || t.tensor.shape.rank() > 0, "{}: a tensor without dimensions has no rows",
                 t.name);
  }
  names = {kStateName, kCommitName};
  for (const Attachment& a : attachments)
    if (a.name.empty() || a.name.find('/') != std::string::npos || a.name.starts_with("index-") ||
        !names.insert(a.name).second)
      fail(ErrorKind::kUsage, "a file called '{}' cannot be attached to a checkpoint", a.name);
  std::sort(tensors.begin(), tensors.end(), [](const TensorToSave& a, const TensorToSave& b) {
    return std::tie(a.part, a.name) < std::tie(b.part, b.name);
  });
  for (const TensorToSave& t : tensors) {
    save->source.push_back(static_cast<const std::byte*>(t.tensor.data));
    save->left += t.tensor.bytes();
  }
  save->live = save->outcome.bytes = save->left;
  save->fetched.assign(tensors.size(), 0);
  save->tensors = std::move(tensors);
  save->attachments = std::move(attachments);
  Save& started = *save;
  {
    std::lock_guard lock(mutex_);
    save_ = std::move(save);
    started.outcome.stall_s = clock_.now_s() - began_s;
  }
  thread_ = std::thread([this, &started] { run(started); });
}

bool BackgroundWriter::stage_rest(Save& s) {
  try {
    s.staging = Buffer(s.live);
  } catch (const Error&) {
    return false;
  }
  struct Copy {
    const std::byte* from;
    uint64_t bytes, at;
  };
  std::vector<Copy> copies;
  auto* to = static_cast<std::byte*>(s.staging.data());
  uint64_t at = 0;
  for (size_t i = 0; i < s.tensors.size(); ++i) {
    const uint64_t bytes = s.tensors[i].tensor.bytes();
    for (uint64_t from = s.fetched[i]; from < bytes; from += kChunkBytes)
      copies.push_back({s.source[i] + from, std::min(kChunkBytes, bytes - from), at + from - s.fetched[i]});
    // Such that source + offset is right for the rest; what lies before it is not read any more.
    s.source[i] = to + at - s.fetched[i];
    at += bytes - s.fetched[i];
  }
  parallel_for(static_cast<int64_t>(copies.size()), [&](int64_t i) {
    const Copy& c = copies[static_cast<size_t>(i)];
    std::memcpy(to + c.at, c.from, c.bytes);
  });
  s.outcome.staged_bytes = s.live;
  s.live = 0;
  return true;
}

void BackgroundWriter::before_update() {
  std::unique_lock lock(mutex_);
  if (!save_ || save_->ended || save_->live == 0) return;
  Save& s = *save_;
  const double began_s = clock_.now_s();
  progress_.wait(lock, [&] { return s.ended || s.live <= options_.staging_limit_bytes; });
  if (!s.ended && s.live > 0 && !stage_rest(s))
    progress_.wait(
        lock, [&] { return s.ended || s.live == 0; });  // no memory for a copy: slow, but nothing is lost
  s.outcome.stall_s += clock_.now_s() - began_s;
}

void BackgroundWriter::abandon() {
  std::lock_guard lock(mutex_);
  hurry_ = abandoned_ = true;
}

bool BackgroundWriter::busy() const {
  std::lock_guard lock(mutex_);
  return save_ && !save_->ended;
}

std::optional<SaveOutcome> BackgroundWriter::poll() {
  if (busy()) return std::nullopt;
  return wait();
}

std::optional<SaveOutcome> BackgroundWriter::wait() {
  if (thread_.joinable()) thread_.join();
  if (!save_) return std::nullopt;
  SaveOutcome outcome = std::move(save_->outcome);
  save_.reset();
  return outcome;
}

void BackgroundWriter::run(Save& save) {
  std::optional<Error> error;
  try {
    write_everything(save);
  } catch (const Error& e) {
    error =
        Error(e.kind(),
              fmt::format("the checkpoint of step {} could not be saved: {} Older checkpoints are untouched.",
                          save.step, e.what()));
  } catch (const std::bad_alloc&) {
    error = Error(ErrorKind::kDevice,
                  fmt::format("the checkpoint of step {} could not be saved: out of memory", save.step));
  } catch (const std::exception& e) {
    error = Error(ErrorKind::kInternal,
                  fmt::format("the checkpoint of step {} could not be saved: {}", save.step, e.what()));
  }
  if (error) clean_up(save);
  std::lock_guard lock(mutex_);
  save.outcome.directory = save.directory;
  save.outcome.error = std::move(error);
  save.outcome.seconds = clock_.now_s() - save.started_s;
  save.staging = Buffer();
  save.live = save.left = 0;
  save.ended = true;
  progress_.notify_all();
}

template <typename F>
auto BackgroundWriter::retrying(Save& save, F&& f) {
  double pause_s = options_.first_pause_s;
  for (int attempt = 1;; ++attempt) {
    try {
      return f();
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kStorage || attempt >= options_.tries) throw;
    }
    bool hurry;
    {
      std::lock_guard lock(mutex_);
      ++save.outcome.retries;
      hurry = hurry_;
    }
    if (options_.writers == 1) {
      if (!hurry) clock_.sleep_s(pause_s);
    } else {  // may be abandoned meanwhile
      for (double left_s = pause_s; left_s > 0 && !hurry; left_s -= kSlice_s) {
        clock_.sleep_s(std::min(left_s, kSlice_s));
        std::lock_guard lock(mutex_);
        hurry = hurry_;
      }
    }
    pause_s = std::min(2 * pause_s, options_.longest_pause_s);
  }
}

void BackgroundWriter::write_small_file(Save& save, const std::string& name, std::string_view contents) {
  // Whole again at each try, so a failed sync does not matter here.
  retrying(save, [&] {
    const auto file = store_.file_system().create(io::join(save.directory, name));
    file->append(contents);
    file->sync();
    file->close();
  });
}

void BackgroundWriter::write_everything(Save& save) {
  io::FileSystem& fs = store_.file_system();
  save.directory = store_.directory_for_save(save.step);
  uint64_t largest = 0;
  for (const TensorToSave& t : save.tensors) largest = std::max<uint64_t>(largest, t.tensor.bytes());
  save.bounce.resize(std::min(largest, kChunkBytes));
  retrying(save, [&] {
    if (options_.writers == 1) io::remove_tree(fs, save.directory);  // an interrupted attempt
    fs.make_dirs(save.directory);
    // Of an interrupted attempt of this writer: no commit may find it and take it for this one.
    const std::string stale = io::join(save.directory, index_name(options_.writer));
    if (fs.exists(stale)) {
      fs.remove(stale);
      fs.sync_dir(save.directory);
    }
  });
  WriterIndex index;
  index.writer = options_.writer;
  index.writers = options_.writers;
  for (const Part part : {Part::kWeights, Part::kOptimizer}) write_part(save, part, index);
  if (options_.writer == 0) {
    write_small_file(save, kStateName, save.state_json);
    for (const Attachment& a : save.attachments) write_small_file(save, a.name, a.contents);
  }
  write_small_file(save, index_name(options_.writer), to_json(index));
  retrying(save, [&] { fs.sync_dir(save.directory); });
  if (options_.writers > 1) return;
  std::vector<std::string> attachments;
  for (const Attachment& a : save.attachments) attachments.push_back(a.name);
  const Hash128 weights = save.weights.digest();
  save.outcome.weights_hash = weights;
  retrying(save, [&] { store_.commit(save.directory, save.step, 1, attachments, weights, clock_.unix_s()); });
  try {
    store_.prune();
  } catch (const Error&) {  // the new checkpoint is safe; the next save prunes again
  }
}

void BackgroundWriter::write_part(Save& save, Part part, WriterIndex& index) {
  std::vector<io::TensorDeclaration> declarations;
  for (const TensorToSave& t : save.tensors)
    if (t.part == part)
      declarations.push_back({t.name, std::string(to_string(t.tensor.dtype)), t.tensor.shape.dims()});
  if (declarations.empty()) return;
  const std::string name = fmt::format("{}-{:05}.safetensors", to_string(part), options_.writer);
  const std::string path = io::join(save.directory, name);
  const io::Metadata metadata = {{"format", "pt"}};
  auto file = retrying(save, [&] {
    return std::make_unique<io::SafetensorsWriter>(store_.file_system(), path, declarations, metadata);
  });
  std::map<std::string_view, const io::TensorEntry*> entries;
  for (const io::TensorEntry& e : file->tensors()) entries[e.name] = &e;
  for (size_t i = 0; i < save.tensors.size(); ++i) {
    const TensorToSave& t = save.tensors[i];
    if (t.part != part) continue;
    Piece piece;
    piece.tensor = t.name, piece.part = part, piece.dtype = t.tensor.dtype,
    piece.shape = t.tensor.shape.dims();
    piece.rows = piece.shape.empty() ? 1 : piece.shape.front();
    if (t.whole_rows >= 0) piece.first_row = t.first_row, piece.shape.front() = t.whole_rows;
    piece.file = name, piece.offset = entries.at(t.name)->offset, piece.bytes = t.tensor.bytes();
    write_piece(save, *file, i, piece);
    index.pieces.push_back(std::move(piece));
  }
  index.files.push_back({name, file->file_bytes(), file->header().size(), hash128(file->header())});
  file->finish();
}

void BackgroundWriter::write_piece(Save& save, io::SafetensorsWriter& file, size_t tensor, Piece& piece) {
  Hasher whole;
  for (uint64_t offset = 0; offset < piece.bytes;) {
    const uint64_t bytes = fetch(save, tensor, offset, save.bounce.data());
    whole.update(save.bounce.data(), bytes);
    if (piece.part == Part::kWeights) save.weights.update(save.bounce.data(), bytes);
    piece.blocks.push_back(hash64(save.bounce.data(), bytes));
    retrying(save, [&] { file.write_part(piece.tensor, offset, save.bounce.data(), bytes); });
    offset += bytes;
  }
  piece.hash = whole.digest();
}

uint64_t BackgroundWriter::fetch(Save& save, size_t tensor, uint64_t offset, std::byte* to) {
  std::lock_guard lock(mutex_);
  if (abandoned_) fail(ErrorKind::kCancelled, "it was given up.");
  const uint64_t bytes = std::min(kChunkBytes, save.tensors[tensor].tensor.bytes() - offset);
  std::memcpy(to, save.source[tensor] + offset, bytes);
  save.fetched[tensor] = offset + bytes;
  save.left -= bytes;
  if (save.live) {
    save.live -= bytes;
    progress_.notify_all();
  }
  return bytes;
}

void BackgroundWriter::clean_up(Save& save) noexcept {
  if (save.directory.empty() || options_.writers > 1) return;  // other writers' files lie there too
  try {
    if (!store_.file_system().exists(io::join(save.directory, kCommitName)))
      io::remove_tree(store_.file_system(), save.directory);
  } catch (...) {  // the next save or prune removes it
  }
}

}  // namespace stoker::checkpoint
