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
  // The signatures of documents [first, first + count), one after another. Valid until the next call with the same slot (0 or 1).
  std::span<const uint32_t> get(uint64_t document, int slot, uint64_t count = 1) {
    const uint64_t first = document * entries_, size = count * entries_;
    if (first >= in_file_) return {tail_.data() + (first - in_file_), size};
    auto& buffer = buffers_[slot];
    buffer.resize(size);
    const uint64_t filed = std::min(size, in_file_ - first);
    read_exactly(buffer.data(), filed * sizeof(uint32_t), first * sizeof(uint32_t));
    std::copy_n(tail_.data(), size - filed, buffer.data() + filed);
    return buffer;
  }
  // As many signatures as a quarter of the budget holds.
  uint64_t at_once() const {
    return std::max<uint64_t>(1, budget_.memory_bytes / 4 / (entries_ * sizeof(uint32_t)));
  }

 private:
  void flush() {
    if (fd_ < 0) {
      std::error_code ignored;
      std::filesystem::create_directories(budget_.directory, ignored);
      fd_ = ::open(path_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
      if (fd_ < 0) broken("open");
      ::posix_fadvise(
          fd_, 0, 0,
          POSIX_FADV_RANDOM);   // reading ahead of single signatures would read everything many times
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

// Two documents that share a band.
struct Pair {
  uint32_t document, best;
  auto operator<=>(const Pair&) const = default;
};

class UnionFind {
 public:
  UnionFind(size_t n, const std::string& directory) : parent_(directory) {
    parent_.assign(n, 0);
    std::iota(parent_.begin(), parent_.end(), 0u);
    parent_.read_at_random();
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

void ExactDuplicateFinder::add(const DocumentKey& key) {
  if (size_ == UINT32_MAX)
    fail(ErrorKind::kUsage, "exact duplicates are found among at most {} documents in one build",
         UINT32_MAX - 1);
  documents_.add({key, size_++}, key.content.high >> 58);
}

SpillArray<DuplicateVerdict> ExactDuplicateFinder::finish() {
  SpillArray<DuplicateVerdict> verdicts(directory_);
  verdicts.assign(size_, {});
  documents_.for_each_partition([](const Record& r, uint64_t slices) { return r.key.content.low % slices; },
                                [&](std::vector<Record>& records) {
                                  std::sort(records.begin(), records.end(),
                                            [](const Record& a, const Record& b) {
                                              if (a.key.content != b.key.content)
                                                return a.key.content < b.key.content;
                                              return stays_before(a.key, b.key);
                                            });
                                  const Record* kept = nullptr;
                                  for (const Record& r : records) {
                                    if (!kept || r.key.content != kept->key.content) kept = &r;
                                    verdicts[r.document] = {kept->document, kept->document, 1};
                                  }
                                });
  return verdicts;
}

struct NearDuplicateFinder::State {
  explicit State(NearDuplicateOptions o)
      : options(std::move(o)),
        documents(options.spill.directory),
        signatures(options.parameters.entries(), options.spill),
        bands(options.spill),
        band_key(options.parameters.bands) {}

  void pair_up(SpillTable<Pair>& pairs);
  void compare(SpillTable<Pair>& pairs, UnionFind& clusters);
  void compare_block(std::span<Pair> pairs, UnionFind& clusters);

  NearDuplicateOptions options;
  SpillArray<DocumentKey> documents;
  SignatureStore signatures;
  SpillTable<BandRecord> bands;
  std::vector<uint64_t> band_key;
  SpillArray<DuplicateVerdict> verdicts;
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

// A star around each bucket's best member: linear in the bucket, and the same star whatever the order. Nothing is compared yet, so
// that signatures can be read in their order.
void NearDuplicateFinder::State::pair_up(SpillTable<Pair>& pairs) {
  documents.read_at_random();
  verdicts.read_at_random();
  auto star = [&](std::span<const BandRecord> bucket) {
    const auto best = std::min_element(bucket.begin(), bucket.end(), [&](const auto& a, const auto& b) {
                        return stays_before(documents[a.document], documents[b.document]);
                      })->document;
    for (const auto& record : bucket) {
      const uint32_t d = record.document;
      // Near duplicates meet in most of their bands: told once is mostly enough.
      if (d == best || verdicts[d].matched == best) continue;
      verdicts[d].matched = best;
      pairs.add({d, best}, uint64_t{d} * SpillTable<Pair>::kPartitions / documents.size());
    }
  };
  bands.for_each_partition([](const BandRecord& r, uint64_t slices) { return (r.key & 0xFFFFFFFF) % slices; },
                           [&](std::vector<BandRecord>& records) {
                             std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) {
                               return a.key != b.key ? a.key < b.key : a.document < b.document;
                             });
                             for (size_t i = 0, j; i < records.size(); i = j) {
                               for (j = i + 1; j < records.size() && records[j].key == records[i].key;) ++j;
                               if (j - i > 1) star({records.data() + i, j - i});
                             }
                           });
}

void NearDuplicateFinder::State::compare(SpillTable<Pair>& pairs, UnionFind& clusters) {
  const uint64_t most = signatures.at_once();
  // Partitions and slices are runs of documents.
  const uint64_t count = documents.size();
  pairs.for_each_partition(
      [&](const Pair& p, uint64_t slices) {
        return uint64_t{p.document} * SpillTable<Pair>::kPartitions % count * slices / count;
      },
      [&](std::vector<Pair>& found) {
        std::sort(found.begin(), found.end());
        found.erase(std::unique(found.begin(), found.end()), found.end());
        for (size_t i = 0, j; i < found.size(); i = j) {
          for (j = i; j < found.size() && found[j].document - found[i].document < most;) ++j;
          compare_block({found.data() + i, j - i}, clusters);
        }
      });
}

// The documents lie near each other, by number; so their signatures are read at once, and those of the best in ascending order.
void NearDuplicateFinder::State::compare_block(std::span<Pair> pairs, UnionFind& clusters) {
  const uint32_t first = pairs.front().document;
  const size_t entries = static_cast<size_t>(options.parameters.entries());
  const auto block = signatures.get(first, 0, pairs.back().document - first + 1);
  std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.best < b.best; });
  std::span<const uint32_t> wanted;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const auto [d, best] = pairs[i];
    if (i == 0 || best != pairs[i - 1].best) wanted = signatures.get(best, 1);
    const auto similarity =
        static_cast<float>(estimated_similarity(wanted, block.subspan((d - first) * entries, entries)));
    if (similarity < options.min_similarity) continue;
    clusters.join(best, d);
    auto& v = verdicts[d];
    if (similarity > v.similarity ||
        (similarity == v.similarity && stays_before(documents[best], documents[v.matched])))
      v.matched = best, v.similarity = similarity;
  }
}

SpillArray<DuplicateVerdict> NearDuplicateFinder::finish() {
  auto& documents = state_->documents;
  auto& signatures = state_->signatures;
  auto& verdicts = state_->verdicts;
  const std::string& directory = state_->options.spill.directory;
  UnionFind clusters(documents.size(), directory);
  verdicts = SpillArray<DuplicateVerdict>(directory);
  verdicts.assign(documents.size(), {});
  auto forget = [&] {
    for (uint32_t i = 0; i < verdicts.size(); ++i) verdicts[i] = {i, i, -1};
  };
  forget();
  {
    SpillTable<Pair> pairs(state_->options.spill);
    state_->pair_up(pairs);
    forget();
    state_->compare(pairs, clusters);
  }

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
  return std::move(verdicts);
}

}  // namespace stoker::corpus
