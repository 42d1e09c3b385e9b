#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "base/checked.h"
#include "base/threads.h"

namespace stoker::checkpoint {
namespace {

std::string damaged_block(const Piece& p, const std::string& path, uint64_t block) {
  const uint64_t begin = p.offset + block * kBlockBytes;
  const uint64_t end = std::min(begin + kBlockBytes, p.offset + p.bytes);
  return fmt::format("tensor '{}' in '{}', bytes {} to {}: the contents do not match their hash", p.tensor,
                     path, begin, end);
}

}  // namespace

uint64_t StoredTensor::bytes() const { return static_cast<uint64_t>(shape.count()) * dtype_size(dtype); }

Checkpoint Checkpoint::open(io::FileSystem& fs, const std::string& directory) {
  const std::string marker = io::join(directory, kCommitName);
  if (!fs.exists(marker))
    fail(
        ErrorKind::kUsage,
        "'{}' is not a committed checkpoint: it has no '{}'. The save was interrupted, or the path is wrong.",
        directory, kCommitName);
  Checkpoint c(fs, directory);
  c.commit_ = parse_commit(io::read_text(fs, marker), marker);
  bool has_state = false;
  int indices = 0;
  for (const CommittedFile& f : c.commit_.files) {
    const std::string path = io::join(directory, f.name);
    if (f.name == kStateName) {
      c.state_ = parse_training_state(c.read_committed(f), path);
      has_state = true;
    } else if (indices < c.commit_.writers && f.name == index_name(indices)) {
      c.add_index(parse_index(c.read_committed(f), path));
      ++indices;
    }
  }
  if (!has_state || indices != c.commit_.writers)
    fail(ErrorKind::kData, "'{}' names {} of {} indices{}", marker, indices, c.commit_.writers,
         has_state ? "" : " and no state.json");
  if (c.state_.step != c.commit_.step)
    fail(ErrorKind::kData, "'{}': the marker is of step {}, the state of step {}", directory, c.commit_.step,
         c.state_.step);
  c.sort_and_check_coverage();
  for (const TensorFile& f : c.files_) {
    std::shared_ptr<io::ReadableFile> file =
        fs.open_read(io::join(directory, f.name), io::Access::kSequential);
    if (file->size() != f.bytes)
      fail(ErrorKind::kData, "'{}' has {} bytes: expected {}. The file is truncated or was changed.",
           file->path(), file->size(), f.bytes);
    c.open_files_[f.name] = std::move(file);
  }
  return c;
}

void Checkpoint::add_index(const WriterIndex& index) {
  if (index.writers != commit_.writers)
    fail(ErrorKind::kData, "'{}': an index speaks of {} writers, the marker of {}", directory_, index.writers,
         commit_.writers);
  for (const TensorFile& f : index.files) {
    for (const TensorFile& other : files_)
      if (other.name == f.name)
        fail(ErrorKind::kData, "'{}': two indices name the file '{}'", directory_, f.name);
    files_.push_back(f);
  }
  for (const Piece& p : index.pieces) {
    StoredTensor& t = tensors_[p.tensor];
    const Shape shape{std::span<const int64_t>(p.shape)};
    if (t.pieces.empty()) {
      t.name = p.tensor, t.part = p.part, t.dtype = p.dtype, t.shape = shape;
    } else if (t.part != p.part || t.dtype != p.dtype || t.shape != shape) {
      fail(ErrorKind::kData, "'{}': tensor '{}' is {} {} in one index and {} {} in another", directory_,
           p.tensor, to_string(t.dtype), to_string(t.shape), to_string(p.dtype), to_string(shape));
    }
    t.pieces.push_back(p);
  }
}

void Checkpoint::sort_and_check_coverage() {
  for (auto& [name, t] : tensors_) {
    std::sort(t.pieces.begin(), t.pieces.end(), [](const Piece& a, const Piece& b) {
      return std::tie(a.first_row, a.rows) < std::tie(b.first_row, b.rows);
    });
    int64_t at = 0;
    for (const Piece& p : t.pieces) {
      if (p.first_row != at)
        fail(ErrorKind::kData, "'{}': tensor '{}' has rows from {} where {} is expected: {}", directory_,
             name, p.first_row, at,
             p.first_row < at ? "two writers saved the same rows" : "rows are missing");
      at += p.rows;
    }
    if (at != total_rows(t.pieces.front()))
      fail(ErrorKind::kData, "'{}': tensor '{}' has {} of {} rows", directory_, name, at,
           total_rows(t.pieces.front()));
  }
}

std::string Checkpoint::read_committed(const CommittedFile& f) const {
  const std::string path = io::join(directory_, f.name);
  const std::string text = io::read_text(*fs_, path, uint64_t{1} << 31);
  if (text.size() != f.bytes || hash128(text) != f.hash)
    fail(ErrorKind::kData,
         "'{}': {} bytes with hash {}: the marker expects {} bytes with hash {}. The file is damaged.", path,
         text.size(), hash128(text).hex(), f.bytes, f.hash.hex());
  return text;
}

const StoredTensor& Checkpoint::tensor(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) fail(ErrorKind::kData, "'{}' has no tensor '{}'", directory_, name);
  return it->second;
}

std::vector<std::string> Checkpoint::attachments() const {
  std::vector<std::string> names;
  for (const CommittedFile& f : commit_.files)
    if (f.name != kStateName && !f.name.starts_with("index-")) names.push_back(f.name);
  return names;
}

std::string Checkpoint::attachment(const std::string& name) const {
  for (const CommittedFile& f : commit_.files)
    if (f.name == name) return read_committed(f);
  fail(ErrorKind::kUsage, "'{}' holds no file '{}'", directory_, name);
}

std::optional<ReplayRecord> Checkpoint::replay_record() const {
  const std::string path = io::join(directory_, kReplayName);
  if (!fs_->exists(path)) return std::nullopt;
  return parse_replay_record(io::read_text(*fs_, path), path);
}

void Checkpoint::read_piece(const Piece& p, uint64_t begin, uint64_t end, std::byte* to) const {
  const io::ReadableFile& file = *open_files_.at(p.file);
  std::vector<std::byte> partial;
  for (uint64_t block = begin / kBlockBytes; block * kBlockBytes < end; ++block) {
    const uint64_t from = block * kBlockBytes, until = std::min(from + kBlockBytes, p.bytes);
    const uint64_t want_from = std::max(from, begin), want_until = std::min(until, end);
    const bool whole = want_from == from && want_until == until;
    if (!whole) partial.resize(until - from);
    std::byte* at = whole ? to + (from - begin) : partial.data();
    file.read_at(p.offset + from, at, until - from);
    if (hash64(at, until - from) != p.blocks[block])
      fail(ErrorKind::kData, "{}", damaged_block(p, file.path(), block));
    if (!whole) std::memcpy(to + (want_from - begin), at + (want_from - from), want_until - want_from);
  }
}

void Checkpoint::load(const std::string& name, TensorView into) const {
  const StoredTensor& t = tensor(name);
  if (into.shape != t.shape)
    fail(ErrorKind::kData, "tensor '{}' of '{}' has shape {}: expected {}", name, directory_,
         to_string(t.shape), to_string(into.shape));
  load_rows(name, 0, total_rows(t.pieces.front()), into);
}

void Checkpoint::load_rows(const std::string& name, int64_t begin, int64_t end, TensorView into) const {
  const StoredTensor& t = tensor(name);
  const int64_t rows = total_rows(t.pieces.front());
  const uint64_t one = row_bytes(t.pieces.front());
  if (into.dtype != t.dtype)
    fail(ErrorKind::kData, "tensor '{}' of '{}' is {}: expected {}", name, directory_, to_string(t.dtype),
         to_string(into.dtype));
  STOKER_CHECK(0 <= begin && begin <= end && end <= rows, "rows {} to {} of {}", begin, end, rows);
  STOKER_CHECK(into.bytes() == one * static_cast<uint64_t>(end - begin), "{} bytes for rows {} to {} of '{}'",
               into.bytes(), begin, end, name);
  for (const Piece& p : t.pieces) {
    const int64_t from = std::max(begin, p.first_row), until = std::min(end, p.first_row + p.rows);
    if (from >= until) continue;
    read_piece(p, static_cast<uint64_t>(from - p.first_row) * one,
               static_cast<uint64_t>(until - p.first_row) * one,
               static_cast<std::byte*>(into.data) + static_cast<uint64_t>(from - begin) * one);
  }
}

void Checkpoint::check_piece(const Piece& p, std::vector<Damage>& found,
                             const std::function<void(uint64_t)>& on_bytes) const {
  const io::ReadableFile& file = *open_files_.at(p.file);
  std::vector<std::byte> block(std::min(kBlockBytes, p.bytes));
  Hasher whole;
  bool bad = false;
  for (uint64_t b = 0; b < p.blocks.size(); ++b) {
    const uint64_t from = b * kBlockBytes, bytes = std::min(kBlockBytes, p.bytes - from);
    try {
      file.read_at(p.offset + from, block.data(), bytes);
    } catch (const Error& e) {
      found.push_back({p.tensor, p.file, p.offset + from, bytes, e.what()});
      bad = true;
      continue;
    }
    whole.update(block.data(), bytes);
    if (hash64(block.data(), bytes) != p.blocks[b]) {
      found.push_back({p.tensor, p.file, p.offset + from, bytes, damaged_block(p, file.path(), b)});
      bad = true;
    }
    if (on_bytes) on_bytes(bytes);
  }
  if (!bad && whole.digest() != p.hash)
    found.push_back({p.tensor, p.file, p.offset, p.bytes,
                     fmt::format("tensor '{}' in '{}': blocks are sound but the whole has another hash",
                                 p.tensor, file.path())});
}

std::vector<Damage> Checkpoint::verify(const std::function<void(uint64_t)>& on_bytes) const {
  std::vector<Damage> found;
  for (const CommittedFile& f : commit_.files) {
    try {
      (void)read_committed(f);
    } catch (const Error& e) {
      found.push_back({"", f.name, 0, f.bytes, e.what()});
    }
  }
  for (const TensorFile& f : files_) {
    const io::ReadableFile& file = *open_files_.at(f.name);
    std::string header(f.header_bytes, '\0');
    file.read_at(0, header.data(), header.size());
    if (hash128(header) != f.header_hash)
      found.push_back({"", f.name, 0, f.header_bytes,
                       fmt::format("'{}': the header does not match its hash", file.path())});
  }
  std::vector<const Piece*> pieces;
  for (const auto& [name, t] : tensors_)
    for (const Piece& p : t.pieces) pieces.push_back(&p);
  std::mutex mutex;
  parallel_for(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    std::vector<Damage> here;
    check_piece(*pieces[static_cast<size_t>(i)], here, on_bytes);
    std::lock_guard lock(mutex);
    found.insert(found.end(), here.begin(), here.end());
  });
  std::sort(found.begin(), found.end(), [](const Damage& a, const Damage& b) {
    return std::tie(a.file, a.offset) < std::tie(b.file, b.offset);
  });
  if (found.empty() && compute_weights_hash() != commit_.weights_hash)
    found.push_back(
        {"", kCommitName, 0, 0,
         fmt::format("'{}': every tensor is sound, but together they do not have the weights hash {}",
                     directory_, commit_.weights_hash.hex())});
  return found;
}

Hash128 Checkpoint::compute_weights_hash(const std::function<void(uint64_t)>& on_bytes) const {
  Hasher hasher;
  std::vector<std::byte> block(kBlockBytes);
  for (const auto& [name, t] : tensors_) {
    if (t.part != Part::kWeights) continue;
    for (const Piece& p : t.pieces)
      for (uint64_t from = 0; from < p.bytes; from += kBlockBytes) {
        const uint64_t until = std::min(from + kBlockBytes, p.bytes);
        read_piece(p, from, until, block.data());
        hasher.update(block.data(), until - from);
        if (on_bytes) on_bytes(until - from);
      }
  }
  return hasher.digest();
}

}  // namespace stoker::checkpoint
