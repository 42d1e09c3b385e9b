#include "checkpoint/store.h"

#include <algorithm>

#include "io/atomic_write.h"

namespace stoker::checkpoint {
namespace {
constexpr const char* kPinName = "PINNED";
}  // namespace

Store::Store(io::FileSystem& fs, std::string directory, int keep_last)
    : fs_(&fs), directory_(std::move(directory)), keep_last_(keep_last) {
  if (keep_last < 1) fail(ErrorKind::kUsage, "checkpoints to keep is {}: expected at least 1", keep_last);
}

bool Store::committed(const std::string& checkpoint_directory) const {
  return fs_->exists(io::join(checkpoint_directory, kCommitName));
}

std::vector<Listed> Store::list() const {
  std::vector<Listed> out;
  if (!fs_->exists(directory_)) return out;
  for (const std::string& name : fs_->list(directory_)) {
    const StepName parsed = parse_directory_name(name);
    const std::string path = io::join(directory_, name);
    if (parsed.step < 0 || !committed(path)) continue;
    out.push_back({parsed.step, parsed.revision, path, fs_->exists(io::join(path, kPinName))});
  }
  std::sort(out.begin(), out.end(), [](const Listed& a, const Listed& b) {
    return std::tie(a.step, b.revision) < std::tie(b.step, a.revision);
  });
  out.erase(
      std::unique(out.begin(), out.end(), [](const Listed& a, const Listed& b) { return a.step == b.step; }),
      out.end());
  return out;
}

std::optional<Listed> Store::latest() const {
  const std::vector<Listed> all = list();
  return all.empty() ? std::nullopt : std::optional(all.back());
}

std::optional<Listed> Store::find(int64_t step) const {
  for (Listed& l : list())
    if (l.step == step) return std::move(l);
  return std::nullopt;
}

Checkpoint Store::open_latest(bool full_check) const {
  const std::vector<Listed> all = list();
  if (all.empty()) fail(ErrorKind::kUsage, "'{}' holds no committed checkpoint", directory_);
  std::string damage;
  try {
    Checkpoint c = Checkpoint::open(*fs_, all.back().directory);
    if (!full_check) return c;
    const std::vector<Damage> found = c.verify();
    if (found.empty()) return c;
    damage = found.front().what;
    if (found.size() > 1) damage += fmt::format(" (and {} more)", found.size() - 1);
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kStorage) throw;
    damage = e.what();
  }
  fail_damaged(damage);
}

void Store::fail_damaged(std::string damage) const {
  const std::vector<Listed> all = list();
  STOKER_CHECK(!all.empty());
  while (damage.ends_with('.')) damage.pop_back();
  const std::string offer =
      all.size() > 1
          ? fmt::format("An older one is committed at step {} ('{}'): remove '{}' to go on from there.",
                        all[all.size() - 2].step, all[all.size() - 2].directory, all.back().directory)
          : "There is no older one.";
  fail(ErrorKind::kData, "the checkpoint of step {} is damaged: {}. {}", all.back().step, damage, offer);
}

void Store::pin(int64_t step) {
  const auto found = find(step);
  if (!found) fail(ErrorKind::kUsage, "'{}' holds no committed checkpoint of step {}", directory_, step);
  io::write_file_atomic(*fs_, io::join(found->directory, kPinName), "");
}

void Store::unpin(int64_t step) {
  const auto found = find(step);
  if (!found || !found->pinned) return;
  fs_->remove(io::join(found->directory, kPinName));
  fs_->sync_dir(found->directory);
}

// The marker goes first: what is half removed does not exist.
void Store::remove(const std::string& checkpoint_directory) {
  if (committed(checkpoint_directory)) {
    fs_->remove(io::join(checkpoint_directory, kCommitName));
    fs_->sync_dir(checkpoint_directory);
  }
  io::remove_tree(*fs_, checkpoint_directory);
}

void Store::prune(int64_t up_to) {
  if (!fs_->exists(directory_)) return;
  const std::vector<Listed> all = list();
  std::vector<std::string> keep;
  int newest = 0;
  for (auto it = all.rbegin(); it != all.rend(); ++it)
    if (it->pinned || newest++ < keep_last_) keep.push_back(it->directory);
  for (const std::string& name : fs_->list(directory_)) {
    const std::string path = io::join(directory_, name);
    const int64_t step = parse_directory_name(name).step;
    if (step >= 0 && step <= up_to && std::find(keep.begin(), keep.end(), path) == keep.end()) remove(path);
  }
}

void Store::discard_after(int64_t step) {
  if (!fs_->exists(directory_)) return;
  // Newest first: stopped half-way, what is left is still a run up to some step.
  std::vector<std::pair<int64_t, std::string>> later;
  for (const std::string& name : fs_->list(directory_))
    if (const StepName parsed = parse_directory_name(name); parsed.step > step)
      later.emplace_back(parsed.step, io::join(directory_, name));
  std::sort(later.rbegin(), later.rend());
  for (const auto& [unused, path] : later) remove(path);
}

void Store::add_replay_record(int64_t checkpoint_step, const ReplayRecord& record) {
  const auto found = find(checkpoint_step);
  if (!found) return;  // pruned meanwhile
  io::write_file_atomic(*fs_, io::join(found->directory, kReplayName), to_json(record));
}

std::string Store::directory_for_save(int64_t step) const {
  int revision = 0;
  if (const auto found = find(step)) revision = found->revision + 1;
  return io::join(directory_, directory_name(step, revision));
}

Hash128 Store::weights_hash(const std::string& dir, int writers,
                            const std::function<void(uint64_t)>& on_read) const {
  Checkpoint together(*fs_, dir);
  together.commit_.writers = writers;
  for (int w = 0; w < writers; ++w) {
    const std::string path = io::join(dir, index_name(w));
    together.add_index(parse_index(io::read_text(*fs_, path, uint64_t{1} << 31), path));
  }
  together.sort_and_check_coverage();
  for (const TensorFile& f : together.files_)
    together.open_files_[f.name] = fs_->open_read(io::join(dir, f.name), io::Access::kSequential);
  return together.compute_weights_hash(on_read);
}

Commit Store::commit(const std::string& dir, int64_t step, int writers,
                     const std::vector<std::string>& attachments, std::optional<Hash128> weights_hash,
                     double unix_s) {
  Commit c;
  c.step = step;
  c.writers = writers;
  c.unix_s = unix_s;
  Checkpoint together(*fs_, dir);
  together.commit_ = c;
  const auto add = [&](const std::string& name) {
    std::string text = io::read_text(*fs_, io::join(dir, name), uint64_t{1} << 31);
    c.files.push_back({name, text.size(), hash128(text)});
    return text;
  };
  add(kStateName);
  for (int w = 0; w < writers; ++w) {
    const WriterIndex index = parse_index(add(index_name(w)), io::join(dir, index_name(w)));
    if (index.writer != w)
      fail(ErrorKind::kData, "'{}' is of writer {}", io::join(dir, index_name(w)), index.writer);
    together.add_index(index);
  }
  together.sort_and_check_coverage();
  for (const auto& [name, t] : together.tensors_) c.tensor_bytes += t.bytes();
  for (const std::string& name : attachments) add(name);
  if (!weights_hash) {
    for (const TensorFile& f : together.files_)
      together.open_files_[f.name] = fs_->open_read(io::join(dir, f.name), io::Access::kSequential);
    weights_hash = together.compute_weights_hash();
  }
  c.weights_hash = *weights_hash;
  io::write_file_atomic(*fs_, io::join(dir, kCommitName), to_json(c));
  return c;
}

std::string resolve_checkpoint(io::FileSystem& fs, const std::string& path) {
  if (!fs.exists(path))
    fail(ErrorKind::kUsage, "'{}' does not exist: expected a checkpoint or a run's directory", path);
  if (fs.exists(io::join(path, kCommitName))) return path;
  if (parse_directory_name(io::name_of(path)).step >= 0) return path;  // interrupted: open() says so
  for (const std::string& directory : {path, io::join(path, "checkpoints")})
    if (fs.exists(directory) && fs.info(directory).directory)
      if (const auto newest = Store(fs, directory).latest()) return newest->directory;
  fail(ErrorKind::kUsage,
       "'{}' holds no committed checkpoint: expected '{}' in it, or step-* directories, or a run's "
       "'checkpoints'",
       path, kCommitName);
}

}  // namespace stoker::checkpoint
