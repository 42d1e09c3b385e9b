// Shards behind a real HTTP server (cpp-httplib's), which misbehaves on request.
#include <gtest/gtest.h>
#include <httplib.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/error.h"
#include "data/loader/loader.h"
#include "data/loader/made_dataset.h"
#include "data/loader/prefetcher.h"
#include "data/loader/staged_source.h"
#include "io/object_store.h"

namespace stoker::data {
namespace {

class Server {
 public:
  explicit Server(io::FileSystem& files) : files_(files) { start(0); }
  ~Server() { stop(); }
  void start(int port) {
    server_ = std::make_unique<httplib::Server>();
    server_->set_keep_alive_timeout(1);  // or stop() waits for idle connections
    server_->Get(R"(/(.+))", [this](const httplib::Request& request, httplib::Response& response) {
      const std::string path = request.matches[1];
      if (request.method != "HEAD") ++requests;
      if (refuse > 0 && request.method != "HEAD") {
        --refuse;
        response.status = 503;
        return;
      }
      if (!files_.exists(path)) {
        response.status = 404;
        return;
      }
      std::string body = io::read_text(files_, path);
      if (damage > 0 && path.ends_with(".bin") && request.method != "HEAD") {
        --damage;
        for (char& c : body) c ^= 1;
      }
      response.set_content(body, "application/octet-stream");
    });
    port_ = port ? (server_->bind_to_port("127.0.0.1", port), port) : server_->bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_->listen_after_bind(); });
    while (!server_->is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  void stop() {
    if (!thread_.joinable()) return;
    server_->stop();
    thread_.join();
  }
  int port() const { return port_; }
  std::string url(const std::string& path) const {
    return fmt::format("http://127.0.0.1:{}/{}", port_, path);
  }
  std::atomic<int> requests{0}, refuse{0}, damage{0};

 private:
  io::FileSystem& files_;
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
  int port_ = 0;
};

constexpr int64_t kLength = 64;

struct Far {
  // About 1 MB of tokens in shards of several blocks.
  Far() : made(make(30000, true, false, 12000)), server(made->fs), remote(local) {}
  std::unique_ptr<Loader> loader(StagingOptions staging, StagedShardSource** source = nullptr) {
    staging.cache_directory = "cache";
    staging.retry.first_wait_s = 0.01;
    if (!staging.retry.say) staging.retry.say = [this](const std::string& m) { said.push_back(m); };
    const Dataset dataset = Dataset::open(remote, server.url("d"));
    auto staged = std::make_unique<StagedShardSource>(remote, local, dataset, "train", staging);
    if (source) *source = staged.get();
    return std::make_unique<Loader>(
        dataset, LoaderOptions{"train", kLength, 3, PackingMode::kDocumentMasks, false, "", 0, "", 0},
        std::move(staged));
  }
  Batch expected(uint64_t first, int64_t rows) {
    const Loader near(made->fs, "d", {"train", kLength, 3, PackingMode::kDocumentMasks, false, "", 0, "", 0});
    Batch b;
    near.fill(first, rows, b);
    return b;
  }
  std::unique_ptr<Made> made;
  Server server;
  io::MemoryFileSystem local;
  io::ObjectFileSystem remote;
  std::vector<std::string> said;
};

TEST(Staged, SameSamplesAsFromLocalShards) {
  Far far;
  StagedShardSource* source = nullptr;
  const auto loader = far.loader({}, &source);
  Batch got;
  loader->fill(0, 200, got);
  EXPECT_EQ(got, far.expected(0, 200));
  const auto stats = source->stats();
  EXPECT_GE(stats.fetched_blocks, 4u);
  const int requests = far.server.requests;
  loader->fill(0, 200, got);  // all of it is near now
  EXPECT_EQ(far.server.requests, requests);
  EXPECT_EQ(source->stats().fetched_blocks, stats.fetched_blocks);
}

TEST(Staged, TheCacheIsBoundedAndUsedAgain) {
  Far far;
  StagingOptions tight;
  tight.cache_bytes = 2 * kSumBlockBytes;
  tight.fetchers = 1;
  Batch got;
  {
    StagedShardSource* source = nullptr;
    const auto loader = far.loader(tight, &source);
    loader->will_fill(0, 200);  // more than fits: it stays within the bound
    loader->fill(0, 50, got);
    EXPECT_EQ(got, far.expected(0, 50));
    EXPECT_GT(source->stats().evicted_blocks, 0u);
    EXPECT_LE(source->stats().cached_bytes, tight.cache_bytes);
  }
  uint64_t on_disk = 0;
  std::string one;
  for (const auto& name : far.local.list("cache"))
    if (name.ends_with(".blk")) on_disk += far.local.info("cache/" + name).size, one = "cache/" + name;
  EXPECT_LE(on_disk, tight.cache_bytes);
  EXPECT_GT(on_disk, 0u);
  // The next run finds what is there, and notices what was damaged meanwhile.
  far.local.flip_bit(one, 1000);
  StagedShardSource* source = nullptr;
  const auto loader = far.loader({}, &source);
  loader->fill(0, 200, got);
  EXPECT_EQ(got, far.expected(0, 200));
  EXPECT_GT(source->stats().found_blocks, 0u);
}

TEST(Staged, RefusalsAndDamageAreRetried) {
  Far far;
  StagedShardSource* source = nullptr;
  const auto loader = far.loader({}, &source);
  far.server.refuse = 3;
  far.server.damage = 2;
  Batch got;
  loader->fill(7, 40, got);
  EXPECT_EQ(got, far.expected(7, 40));
  EXPECT_GE(source->stats().failures, 5u);
  EXPECT_EQ(source->stats().damaged_blocks, 2u);
}

TEST(Staged, DamageThatStaysIsADataError) {
  Far far;
  const auto loader = far.loader({});
  far.server.damage = 1000;
  Batch got;
  try {
    loader->fill(0, 1, got);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kData) << e.what();
    EXPECT_NE(std::string(e.what()).find("does not match its sum"), std::string::npos);
  }
}

TEST(Staged, AKilledServerStallsTheRunAndItGoesOn) {
  Far far;
  StagingOptions staging;
  staging.cache_bytes = 1;  // one block: nearly every row needs the server
  staging.retry.say_after_s = 0.02;
  std::mutex mutex;
  staging.retry.say = [&](const std::string& m) {
    std::lock_guard lock(mutex);
    far.said.push_back(m);
  };
  const auto loader = far.loader(staging);
  Prefetcher prefetcher(*loader, 8, 0, 2);
  Batch got;
  prefetcher.next(got);
  const int port = far.server.port();
  far.server.stop();
  std::thread back([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    far.server.start(port);
  });
  for (uint64_t i = 1; i < 10; ++i) {
    prefetcher.next(got);
    ASSERT_EQ(got, far.expected(8 * i, 8)) << "batch " << i;
  }
  back.join();
  std::lock_guard lock(mutex);
  ASSERT_GE(far.said.size(), 2u);
  EXPECT_NE(far.said[0].find("waiting for storage"), std::string::npos);
  EXPECT_GT(prefetcher.wait_s(), 0.1);
}

TEST(Staged, TheLoaderTakesUrlsAndErrorsNameThem) {
  Far far;
  const std::string cache = testing::TempDir() + "stoker-staged-test";
  io::remove_tree(io::real_file_system(), cache);
  LoaderOptions o{"train", kLength, 3, PackingMode::kDocumentMasks, false, cache, 1 << 20, "", 0};
  {
    const Loader loader(io::real_file_system(), far.server.url("d"), o);
    Batch got;
    loader.fill(11, 9, got);
    EXPECT_EQ(got, far.expected(11, 9));
  }
  io::remove_tree(io::real_file_system(), cache);
  try {
    Loader(io::real_file_system(), far.server.url("nothing"), o);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("/nothing"), std::string::npos);
  }
  io::remove_tree(io::real_file_system(), cache);
}

}  // namespace
}  // namespace stoker::data
