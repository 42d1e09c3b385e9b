#include "data/corpus/dedup_documents.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace stoker::corpus {
namespace {

// Signatures in order of documents: in memory up to a budget, the rest in a file read with pread.
class SignatureStore {
 public:
  SignatureStore(size_t entries, const SpillBudget& budget)
      : entries_(entries), budget_(budget), path_(budget.directory + "/signatures") {}
  ~SignatureStore() {
    if (fd_ >= 0) ::close(fd_);
  }
  void add(std::span<const uint32_t> signature) {
    const size_t offset = tail_.size();
    if (offset + entries_ > tail_.capacity() && !budget_.directory.empty()) {
      const size_t most = budget_.memory_bytes / sizeof(uint32_t) + entries_;
      tail_.reserve(
          std::min(std::max(2 * tail_.capacity(), 64 * entries_), std::max(most, offset + entries_)));
    }
    tail_.resize(offset + entries_);
    if (!signature.empty()) std::memcpy(tail_.data() + offset, signature.data(), entries_ * sizeof(uint32_t));
    if (!budget_.directory.empty() && tail_.size() * sizeof(uint32_t) >= budget_.memory_bytes) flush();
  }
  // Valid until the next call with the same slot (0 or 1).
  std::span<const uint32_t> get(uint64_t document, int slot) {
    const uint64_t first = document * entries_;
    if (first >= in_file_) return {tail_.data() + (first - in_file_), entries_};
    auto& buffer = buffers_[slot];
    buffer.resize(entries_);
    read_exactly(buffer.data(), entries_ * sizeof(uint32_t), first * sizeof(uint32_t));
    return {buffer.data(), entries_};
  }

 private:
  void flush() {
    if (fd_ < 0) {
      std::error_code ignored;
      std::filesystem::create_directories(budget_.directory, ignored);
      fd_ = ::open(path_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
      if (fd_ < 0) broken("open");
      ::unlink(path_.c_str());  // it is gone with the process, whatever ends it
    }
    const char* data = reinterpret_cast<const char*>(tail_.data());
    size_t left = tail_.size() * sizeof(uint32_t);
    uint64_t at = in_file_ * sizeof(uint32_t);
    while (left) {
      const ssize_t wrote = ::pwrite(fd_, data, left, static_cast<off_t>(at));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) broken("write");
      data += wrote, left -= wrote, at += wrote;
    }
    in_file_ += tail_.size();
    tail_.clear();
  }
  void read_exactly(void* to, size_t bytes, uint64_t at) {
    auto* p = static_cast<char*>(to);
    while (bytes) {
      const ssize_t got = ::pread(fd_, p, bytes, static_cast<off_t>(at));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) broken("read");
      p += got, bytes -= got, at += got;
    }
  }
  [[noreturn]] void broken(const char* what) {
    fail(ErrorKind::kStorage,
         "cannot {} spill file {}: {}; free space there or choose another spill directory", what, path_,
         std::strerror(errno));
  }
  size_t entries_;
  SpillBudget budget_;
  std::string path_;
  std::vector<uint32_t> tail_;
  std::vector<uint32_t> buffers_[2];
  uint64_t in_file_ = 0;  // entries
  int fd_ = -1;
};

struct BandRecord {
  uint64_t key;
  uint32_t document;
  uint32_t unused = 0;
};

class UnionFind {
 public:
  UnionFind(size_t n, const std::string& directory) : parent_(directory) {
    parent_.assign(n, 0);
    std::iota(parent_.begin(), parent_.end(), 0u);
  }
  uint32_t find(uint32_t x) {
    while (parent_[x] != x) x = parent_[x] = parent_[parent_[x]];
    return x;
  }
  // The smaller index becomes the root: which one does not matter for the result, only that it is one of
  // them.
  void join(uint32_t a, uint32_t b) {
    a = find(a), b = find(b);
    if (a != b) parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  SpillArray<uint32_t> parent_;
};

}  // namespace

bool stays_before(const DocumentKey& a, const DocumentKey& b) {
  if (a.quality != b.quality) return a.quality > b.quality;
  if (a.content != b.content) return a.content < b.content;
  return a.id < b.id;
}

SpillArray<DuplicateVerdict> find_exact_duplicates(std::span<const DocumentKey> documents,
                                                   const std::string& directory) {
  SpillArray<uint32_t> order(directory);
  order.assign(documents.size(), 0);
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const auto &x = documents[a], &y = documents[b];
    if (x.content != y.content) return x.content < y.content;
    return stays_before(x, y);
  });
  SpillArray<DuplicateVerdict> verdicts(directory);
  verdicts.assign(documents.size(), {});
  uint32_t kept = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || documents[order[i]].content != documents[kept].content) kept = order[i];
    verdicts[order[i]] = {kept, kept, 1};
  }
  return verdicts;
}

struct NearDuplicateFinder::State {
  explicit State(NearDuplicateOptions o)
      : options(std::move(o)),
        documents(options.spill.directory),
        signatures(options.parameters.entries(), options.spill),
        bands(options.spill),
        band_key(options.parameters.bands) {}
  NearDuplicateOptions options;
  SpillArray<DocumentKey> documents;
  SignatureStore signatures;
  SpillTable<BandRecord> bands;
  std::vector<uint64_t> band_key;
};

NearDuplicateFinder::NearDuplicateFinder(NearDuplicateOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}
NearDuplicateFinder::~NearDuplicateFinder() = default;

size_t NearDuplicateFinder::size() const { return state_->documents.size(); }

void NearDuplicateFinder::add(const DocumentKey& key, std::span<const uint32_t> signature) {
  const auto& p = state_->options.parameters;
  STOKER_CHECK(signature.empty() || signature.size() == static_cast<size_t>(p.entries()),
               "signature of {} entries, parameters say {}", signature.size(), p.entries());
  const auto document = static_cast<uint32_t>(state_->documents.size());
  if (document == UINT32_MAX)
    fail(ErrorKind::kUsage, "near-duplicate detection holds at most {} documents in one build",
         UINT32_MAX - 1);
  state_->documents.push_back(key);
  state_->signatures.add(signature);
  if (signature.empty()) return;
  band_keys(signature, p.bands, p.rows, state_->band_key);
  for (const uint64_t band : state_->band_key) state_->bands.add({band, document}, band >> 58);
}

SpillArray<DuplicateVerdict> NearDuplicateFinder::finish() {
  auto& documents = state_->documents;
  auto& signatures = state_->signatures;
  const double least = state_->options.min_similarity;
  const std::string& directory = state_->options.spill.directory;
  UnionFind clusters(documents.size(), directory);
  SpillArray<DuplicateVerdict> verdicts(directory);
  verdicts.assign(documents.size(), {});
  for (uint32_t i = 0; i < verdicts.size(); ++i) verdicts[i] = {i, i, -1};

  auto join_bucket = [&](std::span<const BandRecord> bucket) {
    // A star around the bucket's best member: linear in the bucket, and the same star whatever the order.
    const auto best = std::min_element(bucket.begin(), bucket.end(), [&](const auto& a, const auto& b) {
                        return stays_before(documents[a.document], documents[b.document]);
                      })->document;
    for (const auto& record : bucket) {
      const uint32_t d = record.document;
      if (d == best) continue;
      const auto similarity =
          static_cast<float>(estimated_similarity(signatures.get(best, 0), signatures.get(d, 1)));
      if (similarity < least) continue;
      clusters.join(best, d);
      auto& v = verdicts[d];
      if (similarity > v.similarity ||
          (similarity == v.similarity && stays_before(documents[best], documents[v.matched])))
        v.matched = best, v.similarity = similarity;
    }
  };
  state_->bands.for_each_partition(
      [](const BandRecord& r, uint64_t slices) { return (r.key & 0xFFFFFFFF) % slices; },
      [&](std::vector<BandRecord>& records) {
        std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) {
          return a.key != b.key ? a.key < b.key : a.document < b.document;
        });
        for (size_t i = 0, j; i < records.size(); i = j) {
          for (j = i + 1; j < records.size() && records[j].key == records[i].key;) ++j;
          if (j - i > 1) join_bucket({records.data() + i, j - i});
        }
      });

  SpillArray<uint32_t> best(directory);
  best.assign(documents.size(), 0);
  std::iota(best.begin(), best.end(), 0u);
  for (uint32_t d = 0; d < documents.size(); ++d) {
    uint32_t& b = best[clusters.find(d)];
    if (stays_before(documents[d], documents[b])) b = d;
  }
  for (uint32_t d = 0; d < documents.size(); ++d) {
    auto& v = verdicts[d];
    v.kept = best[clusters.find(d)];
    if (v.kept == d) v.matched = d, v.similarity = 1;
    // A bucket's best member that lost only in another bucket has no match of its own: compare with the kept
    // one.
    if (v.matched == d && v.kept != d) {
      v.matched = v.kept;
      v.similarity =
          static_cast<float>(estimated_similarity(signatures.get(v.kept, 0), signatures.get(d, 1)));
    }
  }
  return verdicts;
}

}  // namespace stoker::corpus
