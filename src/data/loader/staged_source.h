// data/loader/staged_source.h
// Shards that lie far away (object storage, a slow mounted file system), brought near block by block: a bounded cache on local disk,
// filled ahead of need by a few threads, every block verified against the shard's block sums on arrival.
// Bits          the same as from local shards: where bytes come from is no input to the batch
// Cache         files named after the content they are part of, so that runs and versions share them; least recently used go first;
//               what an earlier run left is used again, after it has been verified again
// Trouble       unreachable, slow, 5xx: retried with backoff, and said; training stalls and goes on when storage is back. A block that
//               arrives damaged is fetched again; Data after the fourth time
// Memory        a block per fetcher, the indices of shards in use mapped
// Threads       all methods from any thread
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "data/loader/split_stream.h"
#include "data/shard/dataset.h"
#include "io/file_system.h"
#include "io/retry.h"

namespace stoker::data {

struct StagingOptions {
  std::string cache_directory;
  uint64_t cache_bytes = uint64_t{10} << 30;  // of token blocks; indices come on top
  int fetchers = 16;                          // requests at a time
  io::RetryPolicy retry;
};

struct StagingStats {
  uint64_t fetched_blocks = 0, fetched_bytes = 0;
  uint64_t found_blocks = 0;   // in the cache from an earlier run
  uint64_t waited_blocks = 0;  // a reader had to wait for
  uint64_t evicted_blocks = 0, damaged_blocks = 0, failures = 0;
  uint64_t cached_bytes = 0;
};

class StagedShardSource final : public ShardSource {
 public:
  // `origin` holds the dataset's directory, `local` the cache. Both, and the clock, must outlive this object.
  StagedShardSource(io::FileSystem& origin, io::FileSystem& local, Dataset dataset, const std::string& split,
                    StagingOptions options, Clock& clock = system_clock());
  ~StagedShardSource() override;
  void read(size_t shard, uint64_t first, std::span<int32_t> out) override;
  void document_starts(size_t shard, uint64_t first, uint64_t count, std::vector<uint64_t>& out) override;
  std::unique_ptr<io::ReadableFile> open_side(const FileRecord& file) override;
  void will_open_side(const FileRecord& file) override;
  void will_read(size_t shard, uint64_t first, uint64_t count) override;
  StagingStats stats() const;
  void keep(std::unique_ptr<io::FileSystem> origin);  // lives as long as this

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stoker::data
