#include "data/corpus/factory_artifacts.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace stoker::corpus {
namespace {

constexpr size_t kTrailer = 24;
constexpr std::string_view kKinds[] = {"text", "place", "column", "batch"};

template <typename T>
void put_raw(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

class Cursor {
 public:
  explicit Cursor(std::string_view bytes) : bytes_(bytes) {}
  template <typename T>
  T take() {
    T value;
    std::memcpy(&value, text(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view text(uint64_t size) {
    if (size > bytes_.size())
      fail(ErrorKind::kData, "a chunk ends early: {} bytes left, {} wanted", bytes_.size(), size);
    const auto out = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return out;
  }
  std::string string() {
    const auto size = take<uint64_t>();
    return std::string(text(size));
  }
  bool done() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

}  // namespace

ArtifactStore::ArtifactStore(io::FileSystem& fs, std::string directory)
    : fs_(fs), directory_(std::move(directory)) {}

std::string ArtifactStore::path(std::string_view kind, Hash128 key) const {
  STOKER_CHECK(std::find(std::begin(kKinds), std::end(kKinds), kind) != std::end(kKinds), "kind {}", kind);
  const std::string hex = key.hex();
  return fmt::format("{}/{}/{}/{}", directory_, kind, hex.substr(0, 2), hex.substr(2));
}

void ArtifactStore::asked_for(std::string_view kind, Hash128 key) const {
  if (!remembers_) return;
  const uint64_t entry = hash64(path(kind, key));
  std::lock_guard lock(mutex_);
  asked_.insert(entry);
}

bool ArtifactStore::has(std::string_view kind, Hash128 key) const {
  asked_for(kind, key);
  return fs_.exists(path(kind, key));
}

std::optional<std::string> ArtifactStore::get(std::string_view kind, Hash128 key) const {
  asked_for(kind, key);
  const std::string file = path(kind, key);
  if (!fs_.exists(file)) return std::nullopt;
  const auto in = fs_.open_read(file, io::Access::kSequential);
  std::string bytes(in->size(), '\0');
  in->read_at(0, bytes.data(), bytes.size());
  bool good = bytes.size() >= kTrailer;
  if (good) {
    uint64_t trailer[3];
    std::memcpy(trailer, bytes.data() + bytes.size() - kTrailer, kTrailer);
    bytes.resize(bytes.size() - kTrailer);
    const Hash128 hash = hash128(bytes);
    good = trailer[0] == bytes.size() && trailer[1] == hash.high && trailer[2] == hash.low;
  }
  if (good) return bytes;
  fs_.remove(file);
  return std::nullopt;
}

void ArtifactStore::put(std::string_view kind, Hash128 key, std::string_view contents) const {
  static std::atomic<uint64_t> counter{0};
  asked_for(kind, key);
  const std::string file = path(kind, key);
  const std::string temporary = fmt::format("{}.tmp-{}-{}", file, ::getpid(), counter++);
  const std::string folder = io::parent_of(file);
  if (!fs_.exists(folder)) fs_.make_dirs(folder);
  const Hash128 hash = hash128(contents);
  std::string trailer;
  put_raw<uint64_t>(trailer, contents.size());
  put_raw(trailer, hash.high);
  put_raw(trailer, hash.low);
  try {
    const auto out = fs_.create(temporary);
    out->append(contents);
    out->append(trailer);
    out->close();
    fs_.rename(temporary, file);
  } catch (...) {
    try {
      if (fs_.exists(temporary)) fs_.remove(temporary);
    } catch (const Error&) {  // the first error is the one to tell
    }
    throw;
  }
}

ArtifactStore::Pruned ArtifactStore::prune() const {
  STOKER_CHECK(remembers_);
  Pruned out;
  for (const std::string_view kind : kKinds) {
    const std::string folder = io::join(directory_, kind);
    if (!fs_.exists(folder)) continue;
    for (const auto& part : fs_.list(folder))
      for (const auto& name : fs_.list(io::join(folder, part))) {
        const std::string file = io::join(io::join(folder, part), name);
        if (asked_.contains(hash64(file))) continue;
        out.bytes += fs_.info(file).size;
        ++out.files;
        fs_.remove(file);
      }
  }
  return out;
}

std::string encode_chunk(const std::vector<ChunkDocument>& documents) {
  std::string out;
  put_raw<uint64_t>(out, documents.size());
  for (const auto& d : documents) {
    put_raw(out, d.file);
    put_raw(out, d.record);
    for (const std::string* s : {&d.name, &d.bad, &d.text}) {
      put_raw<uint64_t>(out, s->size());
      out += *s;
    }
  }
  return out;
}

std::vector<ChunkDocument> decode_chunk(std::string_view bytes) {
  Cursor in(bytes);
  const auto count = in.take<uint64_t>();
  std::vector<ChunkDocument> out;
  for (uint64_t i = 0; i < count; ++i) {
    ChunkDocument d;
    d.file = in.take<uint32_t>();
    d.record = in.take<uint64_t>();
    d.name = in.string();
    d.bad = in.string();
    d.text = in.string();
    out.push_back(std::move(d));
  }
  if (!in.done()) fail(ErrorKind::kData, "bytes behind the last document of a chunk");
  return out;
}

}  // namespace stoker::corpus
