#include "data/shard/dataset.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "base/threads.h"

namespace stoker::data {
namespace {
constexpr uint64_t kReadBytes = uint64_t{4} << 20;

std::vector<const FileRecord*> files_of(const Manifest& m) {
  std::vector<const FileRecord*> files{&m.tokenizer.file, &m.sources};
  for (const auto& split : m.splits)
    for (const auto& s : split.shards)
      for (const auto* f : {&s.bin, &s.idx, &s.docs, &s.sums})
        if (!f->name.empty()) files.push_back(f);
  return files;
}

void verify_file(io::FileSystem& fs, const std::string& path, const FileRecord& record,
                 const std::function<void(uint64_t)>& on_bytes) {
  if (!fs.exists(path)) fail(ErrorKind::kData, "{}: the manifest names it, but it is missing", path);
  const auto file = fs.open_read(path, io::Access::kSequential);
  if (file->size() != record.bytes)
    fail(ErrorKind::kData, "{}: expected {} bytes, found {}", path, record.bytes, file->size());
  std::vector<char> buffer(std::min(kReadBytes, std::max<uint64_t>(1, record.bytes)));
  Hasher hasher;
  for (uint64_t at = 0; at < record.bytes;) {
    const uint64_t n = std::min<uint64_t>(buffer.size(), record.bytes - at);
    file->read_at(at, buffer.data(), n);
    hasher.update(buffer.data(), n);
    at += n;
    if (on_bytes) on_bytes(n);
  }
  if (const Hash128 found = hasher.digest(); found != record.hash)
    fail(ErrorKind::kData, "{}: expected content hash {}, found {}: its bytes have changed", path,
         record.hash.hex(), found.hex());
}

// What hashes cannot say: that the pieces agree with each other.
void verify_shard(io::FileSystem& fs, const Dataset& dataset, const ShardRecord& shard) {
  const auto file = dataset.open_shard(shard);
  file->index().check(file->bin().size());
  if (file->index().documents() != shard.documents)
    fail(ErrorKind::kData, "{}: expected {} documents, found {}", dataset.path_of(shard.idx), shard.documents,
         file->index().documents());
  if (!shard.docs.name.empty()) {
    const auto bytes = fs.open_read(dataset.path_of(shard.docs));
    const auto table = DocumentTable::parse(bytes->map(), dataset.path_of(shard.docs));
    if (table.documents() != shard.documents)
      fail(ErrorKind::kData, "{}: expected {} documents, found {}", dataset.path_of(shard.docs),
           shard.documents, table.documents());
  }
  if (!shard.sums.name.empty()) {
    const auto bytes = fs.open_read(dataset.path_of(shard.sums));
    const auto sums = BlockSums::parse(bytes->map(), dataset.path_of(shard.sums));
    if (sums.file_bytes != file->bin().size())
      fail(ErrorKind::kData, "{}: made for a .bin of {} bytes, found one of {}", dataset.path_of(shard.sums),
           sums.file_bytes, file->bin().size());
    std::vector<std::byte> block;
    for (uint64_t b = 0; b < sums.sums.size(); ++b) {
      block.resize(sums.block_size(b));
      file->bin().read_at(b * sums.block_bytes, block.data(), block.size());
      if (!sums.matches(b, block))
        fail(ErrorKind::kData, "{}: block {} (offset {}) does not match {}", dataset.path_of(shard.bin), b,
             b * sums.block_bytes, shard.sums.name);
    }
  }
}
}  // namespace

Dataset Dataset::open(io::FileSystem& fs, const std::string& path) {
  Dataset d;
  d.fs_ = &fs;
  // Decided by the name: over HTTP a folder cannot be told from a file.
  const std::string file = path.ends_with(".json") ? path : io::join(path, kManifestName);
  if (!fs.exists(file)) {
    if (const std::string tokens = io::join(path, "tokens"); fs.exists(io::join(tokens, kManifestName)))
      fail(ErrorKind::kUsage, "{}: it is the output of a build; its dataset is {}", path, tokens);
    fail(ErrorKind::kUsage,
         "{}: no dataset there (no {}). Build one with: stoker data prepare INPUT... --out {}", path,
         kManifestName, path);
  }
  d.directory_ = io::parent_of(file);
  d.manifest_ = Manifest::parse(io::read_text(fs, file, uint64_t{1} << 30), file);
  d.hash_ = d.manifest_.hash();
  return d;
}

std::unique_ptr<TokenFile> Dataset::open_shard(const ShardRecord& shard) const {
  auto file = std::make_unique<TokenFile>(*fs_, path_of(shard.bin), path_of(shard.idx));
  if (file->index().token_type() != manifest_.token_type)
    fail(ErrorKind::kData, "{}: expected tokens of type {}, found {}", path_of(shard.idx),
         to_string(manifest_.token_type), to_string(file->index().token_type()));
  if (file->tokens() != shard.tokens)
    fail(ErrorKind::kData, "{}: the manifest says {} tokens, found {}", path_of(shard.bin), shard.tokens,
         file->tokens());
  return file;
}

uint64_t Dataset::total_bytes() const {
  uint64_t total = 0;
  for (const auto* f : files_of(manifest_)) total += f->bytes;
  return total;
}

std::vector<std::string> Dataset::verify(const std::function<void(uint64_t)>& on_bytes) const {
  const auto files = files_of(manifest_);
  std::vector<std::string> faults(files.size());
  parallel_for(static_cast<int64_t>(files.size()), [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    try {
      verify_file(*fs_, path_of(*files[at]), *files[at], on_bytes);
    } catch (const Error& e) {
      faults[at] = e.what();
    }
  });
  std::vector<std::string> out;
  for (auto& f : faults)
    if (!f.empty()) out.push_back(std::move(f));
  if (!out.empty()) return out;
  for (const auto& split : manifest_.splits)
    for (const auto& shard : split.shards) {
      try {
        verify_shard(*fs_, *this, shard);
      } catch (const Error& e) {
        out.push_back(e.what());
      }
    }
  return out;
}

DocumentPlace locate_document(const Dataset& dataset, io::FileSystem& fs, const SplitRecord& split,
                              uint64_t document) {
  if (document >= split.documents)
    fail(ErrorKind::kUsage, "split {} has documents 0 to {}: there is no document {}", split.name,
         split.documents ? split.documents - 1 : 0, document);
  DocumentPlace place;
  uint64_t stream = 0;
  while (document >= split.shards[place.shard].documents) {
    document -= split.shards[place.shard].documents;
    stream += split.shards[place.shard].tokens;
    ++place.shard;
  }
  const ShardRecord& shard = split.shards[place.shard];
  const auto file = dataset.open_shard(shard);
  place.in_shard = document;
  const uint64_t begin = file->document_start(document), end = file->document_start(document + 1);
  if (end < begin)
    fail(ErrorKind::kData, "{}: document {} ends before it begins", file->index().file(), document);
  place.first_token = stream + begin;
  place.tokens = end - begin;
  if (!shard.docs.name.empty()) {
    const auto bytes = fs.open_read(dataset.path_of(shard.docs));
    const auto table = DocumentTable::parse(bytes->map(), dataset.path_of(shard.docs));
    if (document < table.documents()) place.origin = table.at(document);
  }
  return place;
}

}  // namespace stoker::data
