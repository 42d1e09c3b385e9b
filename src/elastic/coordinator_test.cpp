#include "elastic/coordinator.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "elastic/worker_link.h"
#include "net/tls_identity.h"

namespace stoker::elastic {
namespace {

struct Directory {
  Directory()
      : path(std::filesystem::temp_directory_path() / fmt::format("stoker_coord_{}_{}", getpid(), next++)) {
    std::filesystem::create_directories(path);
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string file(const char* name) const { return (path / name).string(); }
  std::filesystem::path path;
  static inline int next = 0;
};

CoordinatorConfig config_for(int workers, const Directory& dir, const std::string& token) {
  CoordinatorConfig c;
  c.membership.target = workers;
  c.membership.heartbeat_timeout_s = 1.0;
  c.token = token;
  c.state_file = dir.file("coordinator.json");
  c.events_file = dir.file("events.jsonl");
  return c;
}

struct Worker {
  Worker(const net::Address& address, const std::string& token, const std::string& name,
         net::Tls tls = net::Tls::kAuto)
      : link(
            LinkConfig{address, tls, token, {name, "here", getpid(), "127.0.0.1", "d"}, 0.05, 10, ""},
            [] { return Pulse{3, "forward", 0, "in barrier #1", 0, 0, ""}; },
            [this](uint64_t, const std::string& why) {
              std::lock_guard lock(mutex);
              broken_why = why;
              ++broken;
            }) {}
  std::mutex mutex;
  std::string broken_why;
  std::atomic<int> broken{0};
  WorkerLink link;
};

void wait_for(const std::function<bool()>& done) {
  const double end = monotonic_s() + 10;
  while (!done() && monotonic_s() < end) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_TRUE(done());
}

TEST(Coordinator, WorkersMeetShareValuesAndLoseOne) {
  Directory dir;
  const std::string token = net::new_token();
  Coordinator coordinator(config_for(3, dir, token));
  std::vector<std::unique_ptr<Worker>> workers;
  for (const char* name : {"a", "b", "c"})
    workers.push_back(std::make_unique<Worker>(coordinator.address(), token, name));
  const auto meet = [&](size_t n) {
    std::vector<Assignment> got(n);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < n; ++i) threads.emplace_back([&, i] { got[i] = workers[i]->link.form("s"); });
    for (auto& t : threads) t.join();
    return got;
  };
  const auto first = meet(3);
  EXPECT_EQ(first[0].generation, 1u);
  workers[0]->link.put("k", std::string("\0binary", 7));
  EXPECT_EQ(workers[1]->link.get("k", 1), std::string("\0binary", 7));
  EXPECT_THROW((void)workers[1]->link.get("nothing", 0.1), Error);

  workers[2].reset();  // no goodbye: its heartbeat stops
  wait_for([&] { return workers[0]->broken > 0 && workers[1]->broken > 0; });
  EXPECT_NE(workers[0]->broken_why.find("no sign of life"), std::string::npos) << workers[0]->broken_why;
  const auto second = meet(2);
  EXPECT_EQ(second[0].generation, 2u);
  EXPECT_EQ(second[0].members.size(), 2u);
  std::string why;
  EXPECT_EQ(workers[0]->link.may_commit(&why, true), true);
  std::ifstream events(dir.file("events.jsonl"));
  const std::string text{std::istreambuf_iterator<char>(events), {}};
  EXPECT_NE(text.find("\"silent\""), std::string::npos);
  EXPECT_NE(text.find("in barrier #1"), std::string::npos);
}

TEST(Coordinator, MayDieAndComeBackWithoutAnyoneNoticing) {
  Directory dir;
  const std::string token = net::new_token();
  auto config = config_for(2, dir, token);
  auto coordinator = std::make_unique<Coordinator>(config);
  config.listen = coordinator->address();
  Worker a(config.listen, token, "a"), b(config.listen, token, "b");
  std::thread t([&] { (void)a.link.form(""); });
  (void)b.link.form("");
  t.join();
  coordinator.reset();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  coordinator = std::make_unique<Coordinator>(config);
  std::string why;
  EXPECT_EQ(a.link.may_commit(&why, true), true);                // repeated until the coordinator is there
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // longer than the heartbeat timeout
  EXPECT_EQ(a.broken, 0);
  EXPECT_EQ(b.broken, 0);
  CoordinatorClient client(config.listen, net::Tls::kAuto, token);
  EXPECT_NE(client.status().find("\"generation\":1"), std::string::npos);
}

TEST(Coordinator, MayMove) {
  Directory dir;
  const std::string token = net::new_token();
  auto coordinator = std::make_unique<Coordinator>(config_for(1, dir, token));
  WorkerLink link(
      {coordinator->address(),
       net::Tls::kAuto,
       token,
       {"a", "here", 1, "", ""},
       0.05,
       10,
       dir.file("address")},
      [] { return Pulse{}; }, [](uint64_t, const std::string&) {});
  (void)link.form("");
  coordinator.reset();
  coordinator = std::make_unique<Coordinator>(config_for(1, dir, token));  // another port
  std::ofstream(dir.file("address")) << coordinator->address().text() << "\n";
  std::string why;
  EXPECT_EQ(link.may_commit(&why, true), true);
}

TEST(Coordinator, AFencedWorkerIsTurnedAway) {
  Directory dir;
  const std::string token = net::new_token();
  Coordinator coordinator(config_for(1, dir, token));
  Worker a(coordinator.address(), token, "a");
  (void)a.link.form("");
  CoordinatorClient supervisor(coordinator.address(), net::Tls::kAuto, token);
  supervisor.exited("a", 0, 9);  // its supervisor saw it end; this is the zombie
  wait_for([&] { return a.broken > 0; });
  EXPECT_TRUE(a.link.fenced());
  std::string why;
  EXPECT_EQ(a.link.may_commit(&why, true), false);
  try {
    (void)a.link.form("");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kPeer);
    EXPECT_NE(std::string(e.what()).find("signal 9"), std::string::npos) << e.what();
  }
}

TEST(Coordinator, TheTokenIsNeeded) {
  Directory dir;
  const std::string token = net::new_token();
  Coordinator coordinator(config_for(1, dir, token));
  Worker stranger(coordinator.address(), net::new_token(), "x");
  try {
    (void)stranger.link.form("");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("token"), std::string::npos);
  }
}

TEST(Coordinator, TlsNeedsTheSameToken) {
  Directory dir;
  const std::string token = net::new_token();
  auto config = config_for(1, dir, token);
  config.tls = net::Tls::kOn;
  Coordinator coordinator(config);
  Worker friend_(coordinator.address(), token, "a", net::Tls::kOn);
  EXPECT_EQ(friend_.link.form("").rank, 0);
  CoordinatorClient stranger(coordinator.address(), net::Tls::kOn, net::new_token());
  EXPECT_FALSE(stranger.answers(1));
  CoordinatorClient plain(coordinator.address(), net::Tls::kOff, token);
  EXPECT_FALSE(plain.answers(1));
}

// To gRPC all of these are a deadline that passed.
TEST(Coordinator, WhoGetsNoAnswerIsToldWhy) {
  Directory dir;
  const std::string token = net::new_token(), other = net::new_token();
  auto config = config_for(1, dir, token);
  config.tls = net::Tls::kOn;
  net::Address gone;
  const auto why = [](const net::Address& address, bool tls, const std::string& with) {
    return std::string(net::status_error({grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"}, "it",
                                         address, tls, with)
                           .what());
  };
  {
    Coordinator coordinator(config);
    gone = coordinator.address();
    EXPECT_NE(why(gone, true, other).find("refused the join token"), std::string::npos);
    EXPECT_NE(why(gone, false, token).find("speaks TLS and was called without"), std::string::npos);
    EXPECT_NE(why(gone, true, token).find("busy or stopped"), std::string::npos);
  }
  EXPECT_NE(why(gone, true, token).find("nothing listens there"), std::string::npos);
  config.tls = net::Tls::kOff;
  Coordinator plain(config);
  EXPECT_NE(why(plain.address(), true, token).find("speaks without TLS"), std::string::npos);
  EXPECT_NE(why(plain.address(), false, token).find("busy or stopped"), std::string::npos);
}

TEST(Coordinator, TwoCannotShareAPort) {
  Directory dir;
  const std::string token = net::new_token();
  auto config = config_for(1, dir, token);
  Coordinator first(config);
  config.listen = first.address();
  EXPECT_THROW(Coordinator second(config), Error);
}

}  // namespace
}  // namespace stoker::elastic
