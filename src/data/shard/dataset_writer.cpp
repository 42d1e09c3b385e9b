#include "data/shard/dataset_writer.h"

#include <signal.h>

#include <cerrno>
#include <charconv>

#include "base/error.h"
#include "data/shard/dataset.h"

namespace stoker::data {
namespace {
constexpr uint64_t kMostDocuments = uint64_t{1} << 24;  // of one shard: bounds what its index costs in memory

// "<out>.tmp-<process>-<n>" of a process that is no more.
void remove_leftovers(io::FileSystem& fs, const std::string& out) {
  const std::string parent = io::parent_of(out), prefix = io::name_of(out) + ".tmp-";
  if (!fs.exists(parent)) return;
  for (const auto& name : fs.list(parent)) {
    if (!name.starts_with(prefix) || !io::is_temporary_name(name)) continue;
    int process = 0;
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), process);
    if (process > 0 && kill(process, 0) != 0 && errno == ESRCH) io::remove_tree(fs, io::join(parent, name));
  }
}

std::string without_trailing_slashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}
}  // namespace

DatasetWriter::DatasetWriter(io::FileSystem& fs, std::string out, TokenType type,
                             DatasetWriterOptions options)
    : fs_(fs), out_(without_trailing_slashes(std::move(out))), type_(type), options_(options) {
  if (fs_.exists(out_)) {
    if (!options_.replace)
      fail(ErrorKind::kUsage, "{} exists already. Choose another --out, or give --replace to build it anew",
           out_);
    if (fs_.info(out_).directory && !fs_.list(out_).empty() && !fs_.exists(io::join(out_, kManifestName)))
      fail(ErrorKind::kUsage,
           "{} is no dataset (it has no {}): it will not be replaced. Choose another --out", out_,
           kManifestName);
  }
  remove_leftovers(fs_, out_);
  const std::string next = out_ + ".next";
  if (options_.replace) io::remove_tree(fs_, next);
  directory_ = std::make_unique<io::AtomicDirectory>(fs_, options_.replace ? next : out_);
}

DatasetWriter::~DatasetWriter() = default;

void DatasetWriter::declare_split(const std::string& split) { splits_[split].record.name = split; }

void DatasetWriter::add(const std::string& split, std::span<const int32_t> tokens,
                        const DocumentOrigin& origin) {
  OpenSplit& s = splits_[split];
  s.record.name = split;
  if (!s.shard)
    s.shard = std::make_unique<ShardWriter>(fs_, directory_->staging(),
                                            fmt::format("{}_{:05}", split, s.record.shards.size()), type_);
  s.shard->add(tokens, origin);
  if (s.shard->tokens() * token_bytes(type_) >= options_.shard_bytes ||
      s.shard->documents() >= kMostDocuments)
    close_shard(s);
}

void DatasetWriter::close_shard(OpenSplit& split) {
  if (!split.shard) return;
  split.record.add(split.shard->finish());
  split.shard.reset();
}

FileRecord DatasetWriter::add_file(const std::string& name, std::string_view contents) {
  const auto file = fs_.create(io::join(directory_->staging(), name));
  file->append(contents);
  file->sync();
  file->close();
  return {name, contents.size(), hash128(contents)};
}

Manifest DatasetWriter::commit(Manifest manifest) {
  manifest.token_type = type_;
  manifest.splits.clear();
  for (auto& [name, split] : splits_) {
    close_shard(split);
    manifest.splits.push_back(std::move(split.record));
  }
  const std::string json = manifest.to_json();
  STOKER_CHECK(Manifest::parse(json, kManifestName) == manifest, "a manifest that does not read back");
  add_file(std::string(kManifestName), json + "\n");
  directory_->commit();
  if (options_.replace) {
    const std::string old = out_ + ".old";
    io::remove_tree(fs_, old);
    if (fs_.exists(out_)) fs_.rename(out_, old);
    fs_.rename(out_ + ".next", out_);
    fs_.sync_dir(io::parent_of(out_));
    io::remove_tree(fs_, old);
  }
  return manifest;
}

}  // namespace stoker::data
