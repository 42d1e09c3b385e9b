#include "data/loader/staged_source.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "data/loader/read_cancel.h"
#include "data/shard/block_sums.h"
#include "io/atomic_write.h"

namespace stoker::data {
namespace {
constexpr int kMostDamaged = 4;
constexpr size_t kMostOpen = 512;  // shards whose index and origin file stay open

using BlockKey = std::pair<size_t, uint64_t>;  // shard, block
enum class FetchState { kQueued, kFetching, kReady, kFailed };

struct Block {
  FetchState state = FetchState::kQueued;
  bool wanted = false;  // a reader waits for it
  bool verified = false;
  uint64_t bytes = 0;
  std::exception_ptr failure;
  std::list<BlockKey>::iterator recent;  // when ready
};

// A whole file beside the shards.
struct Side {
  FetchState state = FetchState::kQueued;
  bool wanted = false;
  std::exception_ptr failure;
};

// What is needed of a shard besides its tokens.
struct ShardParts {
  std::unique_ptr<io::ReadableFile> origin, idx_file;
  TokenIndex index;
  BlockSums sums;
};
}  // namespace

namespace {
struct Opening {
  std::mutex mutex;
  std::shared_ptr<const ShardParts> parts;
  uint64_t used = 0;  // guarded by parts_mutex
};
}  // namespace

struct StagedShardSource::State {
  State(io::FileSystem& origin_fs, io::FileSystem& local_fs, Dataset d, const std::string& split_name,
        StagingOptions o, Clock& c)
      : origin(origin_fs),
        local(local_fs),
        dataset(std::move(d)),
        split(dataset.split(split_name)),
        options(std::move(o)),
        clock(c) {
    if (options.cache_directory.empty())
      fail(ErrorKind::kUsage, "shards of {} need a cache directory", dataset.directory());
    for (const auto& shard : split.shards)
      if (shard.sums.name.empty())
        fail(ErrorKind::kUsage,
             "{}: shard {} has no block sums, so parts of it cannot be verified. Copy the dataset to a local "
             "disk",
             dataset.directory(), shard.bin.name);
    local.make_dirs(options.cache_directory);
    adopt_cache();
    options.retry.should_stop = [this] {
      if (ReadCancel::wanted()) return true;
      std::lock_guard lock(mutex);
      return stop;
    };
    for (int i = 0; i < std::max(1, options.fetchers); ++i) threads.emplace_back([this] { work(); });
  }
  ~State() {
    {
      std::lock_guard lock(mutex);
      stop = true;
    }
    wake_fetchers.notify_all();
    for (auto& t : threads) t.join();
  }

  std::string block_path(const BlockKey& key) const {
    return io::join(options.cache_directory,
                    fmt::format("{}-{}.blk", split.shards[key.first].bin.hash.hex(), key.second));
  }
  // How long a block is that the manifest's size implies.
  uint64_t block_bytes_at(const BlockKey& key) const {
    return std::min(kSumBlockBytes, split.shards[key.first].bin.bytes - key.second * kSumBlockBytes);
  }

  void adopt_cache() {
    std::map<std::string, size_t> shard_of;
    for (size_t i = 0; i < split.shards.size(); ++i) shard_of[split.shards[i].bin.hash.hex()] = i;
    for (const auto& name : local.list(options.cache_directory)) {
      const size_t dash = name.find('-');
      if (dash == std::string::npos || !name.ends_with(".blk")) continue;
      const auto it = shard_of.find(name.substr(0, dash));
      uint64_t block = 0;
      bool digits = dash + 5 < name.size();
      for (size_t i = dash + 1; i + 4 < name.size(); ++i) {
        digits = digits && name[i] >= '0' && name[i] <= '9' && i - dash < 16;
        block = block * 10 + static_cast<uint64_t>(name[i] - '0');
      }
      const std::string path = io::join(options.cache_directory, name);
      if (it == shard_of.end() || !digits || block * kSumBlockBytes >= split.shards[it->second].bin.bytes)
        continue;
      const BlockKey key{it->second, block};
      if (local.info(path).size != block_bytes_at(key) || blocks.count(key)) continue;
      Block& b = blocks[key];
      b.state = FetchState::kReady;
      b.bytes = block_bytes_at(key);
      recent.push_back(key);
      b.recent = std::prev(recent.end());
      stats.cached_bytes += b.bytes;
    }
    make_room();
  }

  // mutex held. Least recently used blocks go until the cache is within its bound.
  void make_room() {
    while (stats.cached_bytes > options.cache_bytes && recent.size() > 1) {
      const BlockKey key = recent.back();
      recent.pop_back();
      stats.cached_bytes -= blocks[key].bytes;
      ++stats.evicted_blocks;
      blocks.erase(key);
      try {
        local.remove(block_path(key));
      } catch (const Error&) {  // another process was faster
      }
    }
  }

  // ---- what a shard consists of

  std::vector<std::byte> fetch_whole(const FileRecord& record) {
    std::vector<std::byte> bytes(record.bytes);
    int damaged = 0;
    retrying([&] {
      const auto file = origin.open_read(dataset.path_of(record), io::Access::kSequential);
      if (file->size() != record.bytes)
        fail(ErrorKind::kData, "{}: the manifest says {} bytes, found {}", file->path(), record.bytes,
             file->size());
      file->read_at(0, bytes.data(), bytes.size());
      if (hash128(bytes.data(), bytes.size()) == record.hash) return;
      ++damaged;
      fail(damaged < kMostDamaged ? ErrorKind::kStorage : ErrorKind::kData, "{}: arrived damaged {} times",
           file->path(), damaged);
    });
    return bytes;
  }

  // In the cache under the name of its content; what is there already is verified again.
  std::string whole_path(const FileRecord& record) const {
    return io::join(options.cache_directory, record.hash.hex() + ".idx");
  }
  std::unique_ptr<io::ReadableFile> near_whole(const FileRecord& record) {
    const std::string path = whole_path(record);
    if (local.exists(path)) {
      auto file = local.open_read(path);
      const auto bytes = file->map();
      if (bytes.size() == record.bytes && hash128(bytes.data(), bytes.size()) == record.hash) return file;
    }
    const auto bytes = fetch_whole(record);
    io::write_file_atomic(local, path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    return local.open_read(path);
  }

  // Shards are opened side by side: each takes several round trips.
  std::shared_ptr<const ShardParts> parts(size_t shard) {
    std::shared_ptr<Opening> opening;
    {
      std::lock_guard lock(parts_mutex);
      auto& at = open_parts[shard];
      if (!at) at = std::make_shared<Opening>();
      opening = at;
      opening->used = ++uses;
      if (open_parts.size() > kMostOpen)
        open_parts.erase(
            std::min_element(open_parts.begin(), open_parts.end(),
                             [](const auto& a, const auto& b) { return a.second->used < b.second->used; }));
    }
    std::lock_guard lock(opening->mutex);
    if (!opening->parts) opening->parts = open_shard(shard);
    return opening->parts;
  }

  std::shared_ptr<const ShardParts> open_shard(size_t shard) {
    const ShardRecord& record = split.shards[shard];
    auto out = std::make_shared<ShardParts>();
    out->idx_file = near_whole(record.idx);
    out->index = TokenIndex::parse(out->idx_file->map(), dataset.path_of(record.idx));
    out->sums = BlockSums::parse(near_whole(record.sums)->map(), dataset.path_of(record.sums));
    if (out->sums.file_bytes != record.bin.bytes || out->sums.block_bytes != kSumBlockBytes)
      fail(ErrorKind::kData, "{}: it is for blocks of {} bytes of a file of {}, expected {} and {}",
           dataset.path_of(record.sums), out->sums.block_bytes, out->sums.file_bytes, kSumBlockBytes,
           record.bin.bytes);
    retrying([&] { out->origin = origin.open_read(dataset.path_of(record.bin), io::Access::kRandom); });
    return out;
  }

  void retrying(const std::function<void()>& action) {
    io::RetryPolicy policy = options.retry;
    auto counted = [&] {
      try {
        action();
      } catch (const Error&) {
        std::lock_guard lock(mutex);
        ++stats.failures;
        throw;
      }
    };
    io::retry_storage(policy, clock, counted);
  }

  // ---- fetchers

  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      wake_fetchers.wait(lock,
                         [&] { return stop || !side_queue.empty() || !wanted.empty() || !ahead.empty(); });
      if (stop) return;
      if (!side_queue.empty()) {  // nobody knows which blocks to ask for without them
        const FileRecord file = std::move(side_queue.front());
        side_queue.pop_front();
        bring_side(lock, file);
      } else {
        auto& queue = wanted.empty() ? ahead : wanted;
        const BlockKey key = queue.front();
        queue.pop_front();
        bring_block(lock, key);
      }
      wake_readers.notify_all();
    }
  }

  // Runs the action without the lock; what it threw.
  static std::exception_ptr unlocked(std::unique_lock<std::mutex>& lock,
                                     const std::function<void()>& action) {
    lock.unlock();
    std::exception_ptr failure;
    try {
      action();
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    return failure;
  }

  void bring_side(std::unique_lock<std::mutex>& lock, const FileRecord& file) {
    sides[file.hash].state = FetchState::kFetching;
    const auto failure = unlocked(lock, [&] { near_whole(file); });
    Side& side = sides[file.hash];
    side.failure = failure;
    side.state = failure ? FetchState::kFailed : FetchState::kReady;
    if (failure && !side.wanted) sides.erase(file.hash);  // only a guess: whoever needs it will try again
  }

  void bring_block(std::unique_lock<std::mutex>& lock, const BlockKey& key) {
    const auto it = blocks.find(key);
    if (it == blocks.end() || it->second.state != FetchState::kQueued) return;  // it was in both queues
    it->second.state = FetchState::kFetching;
    const auto failure = unlocked(lock, [&] { fetch(key); });
    Block& b = blocks[key];
    if (failure) {
      b.failure = failure;
      b.state = FetchState::kFailed;
      if (!b.wanted) blocks.erase(key);  // only a guess: whoever needs it will try again
    } else {
      b.state = FetchState::kReady;
      b.verified = true;
      b.bytes = block_bytes_at(key);
      recent.push_front(key);
      b.recent = recent.begin();
      stats.cached_bytes += b.bytes;
      make_room();
    }
  }

  void fetch(const BlockKey& key) {
    const auto shard = parts(key.first);
    std::vector<std::byte> bytes(shard->sums.block_size(key.second));
    int damaged = 0;
    retrying([&] {
      shard->origin->read_at(key.second * kSumBlockBytes, bytes.data(), bytes.size());
      if (shard->sums.matches(key.second, bytes)) return;
      {
        std::lock_guard lock(mutex);
        ++stats.damaged_blocks;
      }
      ++damaged;
      fail(damaged < kMostDamaged ? ErrorKind::kStorage : ErrorKind::kData,
           "{}: block {} (offset {}) does not match its sum{}", shard->origin->path(), key.second,
           key.second * kSumBlockBytes,
           damaged < kMostDamaged ? "" : ". It is damaged where it lies: fetch or build the dataset again");
    });
    // Not synced: after a crash it is verified before use.
    const std::string path = block_path(key),
                      temporary = fmt::format("{}.tmp-{}-{}", path, ::getpid(), key.second);
    const auto file = local.create(temporary);
    file->append(bytes.data(), bytes.size());
    file->close();
    local.rename(temporary, path);
    std::lock_guard lock(mutex);
    ++stats.fetched_blocks;
    stats.fetched_bytes += bytes.size();
  }

  // ---- readers

  // Until it is ready, has failed, or is not there any more.
  template <typename Map, typename Key>
  void await(std::unique_lock<std::mutex>& lock, const Map& map, const Key& key) {
    const auto arrived = [&] {
      const auto it = map.find(key);
      return it == map.end() || it->second.state == FetchState::kReady ||
             it->second.state == FetchState::kFailed;
    };
    while (!wake_readers.wait_for(lock, std::chrono::milliseconds(100), arrived))
      if (ReadCancel::wanted()) fail(ErrorKind::kCancelled, "a read was given up while waiting for storage");
  }

  // mutex held.
  Side& ask_for_side(const FileRecord& file) {
    const auto [it, fresh] = sides.try_emplace(file.hash);
    if (fresh) {
      side_queue.push_back(file);
      wake_fetchers.notify_one();
    }
    return it->second;
  }

  // Verified once; after that it is taken as it lies.
  std::unique_ptr<io::ReadableFile> open_side(const FileRecord& file) {
    for (;;) {
      {
        std::unique_lock lock(mutex);
        Side& side = ask_for_side(file);
        side.wanted = true;
        await(lock, sides, file.hash);
        const auto it = sides.find(file.hash);
        if (it == sides.end()) continue;
        if (const auto failure = it->second.failure) {
          sides.erase(it);
          std::rethrow_exception(failure);
        }
      }
      if (local.exists(whole_path(file))) {
        auto near = local.open_read(whole_path(file));
        if (near->size() == file.bytes) return near;
      }
      std::lock_guard lock(mutex);  // somebody emptied the cache meanwhile: fetch it again
      if (const auto it = sides.find(file.hash); it != sides.end() && it->second.state == FetchState::kReady)
        sides.erase(it);
    }
  }

  // Makes the block ready and copies a part of it.
  void copy(const BlockKey& key, uint64_t from, std::byte* to, size_t bytes) {
    for (;;) {
      bool verify;
      {
        std::unique_lock lock(mutex);
        Block& b = blocks[key];
        if (b.state == FetchState::kFailed) {
          const auto failure = b.failure;
          blocks.erase(key);
          std::rethrow_exception(failure);
        }
        if (b.state != FetchState::kReady) {
          if (!b.wanted) ++stats.waited_blocks;
          b.wanted = true;
          if (b.state == FetchState::kQueued) wanted.push_back(key);
          wake_fetchers.notify_one();
          await(lock, blocks, key);
          continue;
        }
        recent.splice(recent.begin(), recent, b.recent);
        verify = !b.verified;
      }
      try {
        const auto file = local.open_read(block_path(key), io::Access::kRandom);
        if (verify) {
          std::vector<std::byte> whole(block_bytes_at(key));
          file->read_at(0, whole.data(), whole.size());
          if (!parts(key.first)->sums.matches(key.second, whole))
            fail(ErrorKind::kData, "a damaged block in the cache");
          std::lock_guard lock(mutex);
          ++stats.found_blocks;
          if (const auto it = blocks.find(key); it != blocks.end()) it->second.verified = true;
        }
        file->read_at(from, to, bytes);
        return;
      } catch (const Error& e) {
        if (e.kind() != ErrorKind::kData && e.kind() != ErrorKind::kUsage) throw;
        std::lock_guard lock(mutex);  // evicted meanwhile, or damaged: fetch it again
        const auto it = blocks.find(key);
        if (it != blocks.end() && it->second.state == FetchState::kReady) {
          recent.erase(it->second.recent);
          stats.cached_bytes -= it->second.bytes;
          blocks.erase(it);
        }
      }
    }
  }

  std::unique_ptr<io::FileSystem> kept;
  io::FileSystem &origin, &local;
  Dataset dataset;
  const SplitRecord& split;
  StagingOptions options;
  Clock& clock;
  mutable std::mutex mutex, parts_mutex;
  std::condition_variable wake_fetchers, wake_readers;
  std::map<BlockKey, Block> blocks;
  std::list<BlockKey> recent;  // ready blocks, the most recently used first
  std::deque<BlockKey> wanted, ahead;
  std::map<Hash128, Side> sides;
  std::deque<FileRecord> side_queue;
  std::map<size_t, std::shared_ptr<Opening>> open_parts;
  uint64_t uses = 0;
  StagingStats stats;
  bool stop = false;
  std::vector<std::thread> threads;
};

StagedShardSource::StagedShardSource(io::FileSystem& origin, io::FileSystem& local, Dataset dataset,
                                     const std::string& split, StagingOptions options, Clock& clock)
    : state_(std::make_unique<State>(origin, local, std::move(dataset), split, std::move(options), clock)) {}
StagedShardSource::~StagedShardSource() = default;

void StagedShardSource::read(size_t shard, uint64_t first, std::span<int32_t> out) {
  const TokenType type = state_->dataset.manifest().token_type;
  const uint64_t width = token_bytes(type), begin = first * width, end = begin + out.size() * width;
  std::vector<std::byte> bytes(end - begin);
  for (uint64_t at = begin; at < end;) {
    const uint64_t block = at / kSumBlockBytes, stop = std::min(end, (block + 1) * kSumBlockBytes);
    state_->copy({shard, block}, at - block * kSumBlockBytes, bytes.data() + (at - begin), stop - at);
    at = stop;
  }
  widen_tokens(type, bytes.data(), out);
}

void StagedShardSource::document_starts(size_t shard, uint64_t first, uint64_t count,
                                        std::vector<uint64_t>& out) {
  append_document_starts(state_->parts(shard)->index, state_->split.shards[shard].tokens, first, count, out);
}

void StagedShardSource::will_read(size_t shard, uint64_t first, uint64_t count) {
  if (count == 0) return;
  const uint64_t width = token_bytes(state_->dataset.manifest().token_type);
  std::lock_guard lock(state_->mutex);
  for (uint64_t block = first * width / kSumBlockBytes;
       block <= ((first + count) * width - 1) / kSumBlockBytes; ++block) {
    if (state_->ahead.size() * kSumBlockBytes >= state_->options.cache_bytes / 2)
      return;  // more would push out what comes first
    if (!state_->blocks.try_emplace({shard, block}).second) continue;
    state_->ahead.push_back({shard, block});
    state_->wake_fetchers.notify_one();
  }
}

std::unique_ptr<io::ReadableFile> StagedShardSource::open_side(const FileRecord& file) {
  return state_->open_side(file);
}

void StagedShardSource::will_open_side(const FileRecord& file) {
  std::lock_guard lock(state_->mutex);
  state_->ask_for_side(file);
}

void StagedShardSource::keep(std::unique_ptr<io::FileSystem> origin) { state_->kept = std::move(origin); }

StagingStats StagedShardSource::stats() const {
  std::lock_guard lock(state_->mutex);
  return state_->stats;
}

}  // namespace stoker::data
