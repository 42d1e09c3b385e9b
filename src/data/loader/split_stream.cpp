#include "data/loader/split_stream.h"

#include <algorithm>
#include <list>
#include <mutex>
#include <unordered_map>

#include "base/checked.h"
#include "base/clock.h"
#include "base/error.h"
#include "data/loader/read_cancel.h"

namespace stoker::data {
namespace {

class LocalShardSource final : public ShardSource {
 public:
  LocalShardSource(Dataset dataset, const std::string& split, size_t max_open, io::RetryPolicy retry)
      : dataset_(std::move(dataset)),
        split_(dataset_.split(split)),
        retry_(std::move(retry)),
        max_open_(std::max<size_t>(1, max_open)) {
    if (!retry_.should_stop) retry_.should_stop = [] { return ReadCancel::wanted(); };
  }

  // A mounted file system may go away for a while: then training stalls, and says so.
  void read(size_t shard, uint64_t first, std::span<int32_t> out) override {
    io::retry_storage(retry_, system_clock(), [&] { open(shard)->read(first, out); });
  }
  void document_starts(size_t shard, uint64_t first, uint64_t count, std::vector<uint64_t>& out) override {
    std::shared_ptr<const TokenFile> file;
    io::retry_storage(retry_, system_clock(), [&] { file = open(shard); });
    append_document_starts(file->index(), file->tokens(), first, count, out);
  }
  std::unique_ptr<io::ReadableFile> open_side(const FileRecord& file) override {
    return dataset_.file_system().open_read(dataset_.path_of(file), io::Access::kRandom);
  }

 private:
  std::shared_ptr<const TokenFile> open(size_t shard) {
    std::lock_guard lock(mutex_);
    if (const auto it = at_.find(shard); it != at_.end()) {
      recent_.splice(recent_.begin(), recent_, it->second);
      return it->second->second;
    }
    recent_.emplace_front(shard, dataset_.open_shard(split_.shards[shard]));
    at_[shard] = recent_.begin();
    if (recent_.size() > max_open_) {
      at_.erase(recent_.back().first);
      recent_.pop_back();  // unmapped when the last reader lets go
    }
    return recent_.front().second;
  }

  Dataset dataset_;
  const SplitRecord& split_;
  io::RetryPolicy retry_;
  size_t max_open_;
  std::mutex mutex_;
  std::list<std::pair<size_t, std::shared_ptr<const TokenFile>>> recent_;
  std::unordered_map<size_t, decltype(recent_)::iterator> at_;
};

}  // namespace

std::unique_ptr<ShardSource> local_shard_source(Dataset dataset, const std::string& split, size_t max_open,
                                                io::RetryPolicy retry) {
  return std::make_unique<LocalShardSource>(std::move(dataset), split, max_open, std::move(retry));
}

void append_document_starts(const TokenIndex& index, uint64_t total_tokens, uint64_t first, uint64_t count,
                            std::vector<uint64_t>& out) {
  const uint64_t documents = index.documents(), end = first + count;
  if (documents == 0 || count == 0) return;
  uint64_t document = index.document_of(first, total_tokens);
  uint64_t start = index.document_start(document, total_tokens);
  while (start < end) {
    if (start >= first && (out.empty() || out.back() != start)) out.push_back(start);
    if (++document >= documents) break;
    const uint64_t next = index.document_start(document, total_tokens);
    if (next < start)
      fail(ErrorKind::kData, "{}: document {} starts at token {}, before the one ahead of it ({})",
           index.file(), document, next, start);
    start = next;
  }
}

SplitStream::SplitStream(const SplitRecord& split, int64_t vocabulary, std::unique_ptr<ShardSource> source)
    : vocabulary_(vocabulary), source_(std::move(source)) {
  starts_.push_back(0);
  for (const auto& shard : split.shards) {
    starts_.push_back(checked_add(starts_.back(), shard.tokens, "tokens of a split"));
    names_.push_back(shard.bin.name);
  }
}

size_t SplitStream::shard_of(uint64_t token) const {
  return static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), token) - starts_.begin()) - 1;
}

template <typename Body>
void SplitStream::each_shard(uint64_t first, uint64_t count, Body&& body) const {
  STOKER_CHECK(first <= tokens() && count <= tokens() - first, "tokens {}+{} of {}", first, count, tokens());
  if (count == 0) return;
  size_t shard = shard_of(first);
  for (uint64_t done = 0; done < count; ++shard) {
    const uint64_t at = first + done;
    const uint64_t n = std::min(count - done, starts_[shard + 1] - at);
    if (n) body(shard, at - starts_[shard], n, done);
    done += n;
  }
}

void SplitStream::read(uint64_t first, std::span<int32_t> out) const {
  each_shard(first, out.size(), [&](size_t shard, uint64_t in_shard, uint64_t n, uint64_t done) {
    const auto part = out.subspan(done, n);
    source_->read(shard, in_shard, part);
    uint32_t largest = 0;  // a negative int32 id is a huge unsigned one
    for (const int32_t token : part) largest = std::max(largest, static_cast<uint32_t>(token));
    if (largest >= static_cast<uint64_t>(vocabulary_))
      fail(ErrorKind::kData,
           "{}: token {} lies between positions {} and {}, but the vocabulary has {}. Check it with: stoker "
           "data verify",
           names_[shard], static_cast<int32_t>(largest), in_shard, in_shard + n, vocabulary_);
  });
}

void SplitStream::document_starts(uint64_t first, uint64_t count, std::vector<uint64_t>& out) const {
  std::vector<uint64_t> in_shard_starts;
  each_shard(first, count, [&](size_t shard, uint64_t in_shard, uint64_t n, uint64_t) {
    in_shard_starts.clear();
    source_->document_starts(shard, in_shard, n, in_shard_starts);
    for (const uint64_t start : in_shard_starts) out.push_back(starts_[shard] + start);
  });
}

void SplitStream::will_read(uint64_t first, uint64_t count) const {
  each_shard(first, count, [&](size_t shard, uint64_t in_shard, uint64_t n, uint64_t) {
    source_->will_read(shard, in_shard, n);
  });
}

}  // namespace stoker::data
