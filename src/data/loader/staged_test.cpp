// Shards behind a real HTTP server (cpp-httplib's), which misbehaves on request.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <thread>

#include "base/error.h"
#include "data/loader/loader.h"
#include "data/loader/made_dataset.h"
#include "data/loader/prefetcher.h"
#include "data/loader/staged_source.h"
#include "io/faulty_file_system.h"
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
      const AtOnce counted(*this, path.ends_with(".rows"));
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
  // Requests for rows are held until so many have come together, or ten seconds: then no more are held.
  void hold_rows(int together) { hold_ = together; }
  int most_together() {
    std::lock_guard lock(mutex_);
    return most_;
  }

 private:
  class AtOnce {
   public:
    AtOnce(Server& server, bool counts) : server_(server), counts_(counts) {
      if (!counts_) return;
      std::unique_lock lock(server_.mutex_);
      server_.most_ = std::max(server_.most_, ++server_.now_);
      server_.came_.notify_all();
      if (!server_.came_.wait_for(lock, std::chrono::seconds(10),
                                  [&] { return server_.most_ >= server_.hold_; }))
        server_.hold_ = 0;
    }
    ~AtOnce() {
      std::lock_guard lock(server_.mutex_);
      server_.now_ -= counts_;
    }

   private:
    Server& server_;
    bool counts_;
  };
  std::mutex mutex_;
  std::condition_variable came_;
  int hold_ = 0, now_ = 0, most_ = 0;  // guarded by mutex_
  io::FileSystem& files_;
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
  int port_ = 0;
};

constexpr int64_t kRowLength = 64;

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
        dataset, LoaderOptions{"train", kRowLength, 3, PackingMode::kDocumentMasks, false, "", 0, "", 0},
        std::move(staged));
  }
  Batch expected(uint64_t first, int64_t rows) {
    const Loader near(made->fs, "d",
                      {"train", kRowLength, 3, PackingMode::kDocumentMasks, false, "", 0, "", 0});
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
  LoaderOptions o{"train", kRowLength, 3, PackingMode::kDocumentMasks, false, cache, 1 << 20, "", 0};
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

// Rows of a plan over many far shards.
struct FarPlan {
  FarPlan() : made(make(4000, true, false, 200)), server(made->fs), remote(local) {
    build_pack_plan(made->fs, Dataset::open(made->fs, "d"), "train", "plan", kRowLength);
  }
  static LoaderOptions options() {
    return {"train", kRowLength, 3, PackingMode::kDocumentMasks, false, "", 0, "plan", 0};
  }
  Loader loader() {
    StagingOptions staging;
    staging.cache_directory = "cache";
    staging.retry.first_wait_s = 0.01;
    const Dataset dataset = Dataset::open(remote, server.url("d"));
    return Loader(dataset, options(),
                  std::make_unique<StagedShardSource>(remote, local, dataset, "train", staging));
  }
  std::unique_ptr<Made> made;
  Server server;
  io::MemoryFileSystem local;
  io::ObjectFileSystem remote;
};

TEST(Staged, RowsOfAPlanArriveTogether) {
  FarPlan far;
  far.server.hold_rows(4);
  const Loader near(far.made->fs, "d", FarPlan::options());
  const Loader loader = far.loader();
  Batch expected, got;
  near.fill(0, 64, expected);
  loader.will_fill(0, 64);
  loader.fill(0, 64, got);
  EXPECT_EQ(got, expected);
  EXPECT_GE(far.server.most_together(), 4);
  const int requests = far.server.requests;
  // What is near is not asked for again, and what somebody took away is.
  for (const auto& name : far.local.list("cache"))
    if (name.ends_with(".idx")) far.local.remove("cache/" + name);
  loader.fill(0, 64, got);
  EXPECT_EQ(far.server.requests, requests);
  const Loader again = far.loader();
  again.fill(0, 64, got);
  EXPECT_EQ(got, expected);
  EXPECT_GT(far.server.requests, requests);
}

TEST(Staged, AWaitForRowsCanBeGivenUp) {
  FarPlan far;
  const Loader loader = far.loader();
  far.server.refuse = 1 << 30;
  Prefetcher prefetcher(loader, 8);
  while (far.server.refuse == 1 << 30) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}  // ends although the rows never come

// A mounted file system that answers with errors for a while: reads stall and go on, staged and not.
TEST(Staged, AMountThatGoesAwayStallsTheRun) {
  const auto made = make(3000, true, false, 1200);
  const Loader near(made->fs, "d",
                    {"train", kRowLength, 3, PackingMode::kDocumentMasks, false, "", 0, "", 0});
  Batch expected, got;
  near.fill(0, 40, expected);
  for (const bool staged : {false, true}) {
    io::FaultyFileSystem mount(made->fs, io::FaultyFileSystem::Count::kReads);
    io::MemoryFileSystem local;
    std::vector<std::string> said;
    std::mutex mutex;
    io::RetryPolicy retry;
    retry.first_wait_s = retry.longest_wait_s = 0.01;
    retry.say_after_s = 0;
    retry.say = [&](const std::string& m) {
      std::lock_guard lock(mutex);
      said.push_back(m);
    };
    const auto dataset = Dataset::open(mount, "d");
    std::unique_ptr<ShardSource> source;
    if (staged) {
      StagingOptions options;
      options.cache_directory = "cache";
      options.retry = retry;
      source = std::make_unique<StagedShardSource>(mount, local, dataset, "train", options);
    } else {
      source = local_shard_source(dataset, "train", 256, retry);
    }
    const Loader loader(dataset, {"train", kRowLength, 3, PackingMode::kDocumentMasks, false, "", 0, "", 0},
                        std::move(source));
    mount.arm(io::Fault::kIoError, mount.operations() + 2, 5);
    loader.fill(0, 40, got);
    EXPECT_EQ(got, expected) << staged;
    std::lock_guard lock(mutex);
    ASSERT_FALSE(said.empty()) << staged;
    EXPECT_NE(said[0].find("waiting for storage"), std::string::npos);
  }
}

// Answers that are no answers: each is an error or the right bytes, never wrong ones and never a wait without an end.
TEST(Staged, HostileAnswersAreErrors) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  socklen_t size = sizeof at;
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size), 0);
  ASSERT_EQ(::listen(listener, 16), 0);
  std::mutex mutex;
  std::string answer;  // to everything but HEAD
  std::atomic<bool> stop{false};
  std::thread server([&] {
    for (;;) {
      const int fd = ::accept(listener, nullptr, nullptr);
      if (fd < 0 || stop) {
        if (fd >= 0) ::close(fd);
        return;
      }
      char request[4096];
      const ssize_t n = ::recv(fd, request, sizeof request, 0);
      std::string reply = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\n";
      if (n < 4 || std::string_view(request, 4) != "HEAD") {
        std::lock_guard lock(mutex);
        reply = answer;
      }
      (void)!::send(fd, reply.data(), reply.size(), MSG_NOSIGNAL);
      ::shutdown(fd, SHUT_WR);
      while (::recv(fd, request, sizeof request, 0) > 0) {
      }
      ::close(fd);
    }
  });
  io::MemoryFileSystem below;
  io::ObjectStoreOptions options;
  options.stall_timeout_s = 1;
  io::ObjectFileSystem fs(below, options);
  const std::string url = fmt::format("http://127.0.0.1:{}/x", ntohs(at.sin_port));
  const std::string good =
      "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-5/10\r\nContent-Length: 4\r\n\r\ncdef";
  const auto ask = [&](const std::string& reply) -> std::optional<std::string> {
    {
      std::lock_guard lock(mutex);
      answer = reply;
    }
    std::string got(4, '?');
    try {
      fs.open_read(url)->read_at(2, got.data(), got.size());
      return got;
    } catch (const Error& e) {
      EXPECT_TRUE(e.kind() == ErrorKind::kStorage || e.kind() == ErrorKind::kUsage) << e.what();
      return std::nullopt;
    }
  };
  EXPECT_EQ(ask(good), "cdef");
  for (const std::string& bad :
       {std::string(""), std::string("garbage"),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcdefghij"),
        std::string("HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n\r\ncde"),
        std::string("HTTP/1.1 206 Partial Content\r\nContent-Length: 9\r\n\r\ncdefghijk"),
        std::string("HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n\r\ncd"),
        std::string(
            "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\ncdef"),
        std::string(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/10\r\nContent-Length: 4\r\n\r\nabcd"),
        std::string("HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\n\r\n"),
        "HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\nX: " + std::string(200000, 'y') +
            "\r\n\r\ncdef",
        "HTTP/1.1 206 Partial Content\r\n\r\n" + std::string(200000, 'z')})
    EXPECT_EQ(ask(bad), std::nullopt) << bad.substr(0, 120);
  for (uint64_t trial = 0; trial < 300;
       ++trial) {  // one to three bytes of a good answer changed, or its end lost
    std::string reply = good;
    for (uint64_t i = 0; i < 1 + trial % 3; ++i)
      reply[random_u64({trial, 3}, i) % (reply.size() - 4)] = static_cast<char>(random_u64({trial, 4}, i));
    if (trial % 5 == 0) reply.resize(random_u64({trial, 5}, 0) % reply.size());
    const auto got = ask(reply);
    if (got && trial % 5) {
      EXPECT_EQ(*got, "cdef") << reply;
    }
  }
  stop = true;
  ::shutdown(listener, SHUT_RDWR);
  ::close(listener);
  server.join();
}

}  // namespace
}  // namespace stoker::data
