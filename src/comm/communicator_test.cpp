#include "comm/communicator.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "comm/fault_transport.h"
#include "comm/gloo_transport.h"
#include "comm/ring_transport.h"
#include "comm/tcp_transport.h"
#include "net/greeting.h"
#include "net/rpc.h"

namespace stoker::comm {
namespace {

enum class Kind { kMemory, kShm, kTcp, kGloo };
const char* kind_name(Kind k) {
  return k == Kind::kMemory ? "memory" : k == Kind::kShm ? "shm" : k == Kind::kTcp ? "tcp" : "gloo";
}

// memcmp takes no null pointers, not even for nothing.
bool same_bytes(const void* a, const void* b, size_t bytes) {
  return bytes == 0 || std::memcmp(a, b, bytes) == 0;
}

std::string fresh_name() {
  static int counter = 0;
  return fmt::format("test{}x{}", getpid(), counter++);
}

// Runs body(transport) on n threads, each with its own rank.
void with_transports(Kind kind, int n, const std::function<void(std::unique_ptr<Transport>)>& body) {
  LocalGroup local(n);
  const std::string name = fresh_name();
  const std::string directory = (std::filesystem::temp_directory_path() / ("stoker_" + name)).string();
  std::vector<PeerInfo> peers;
  for (int r = 0; r < n; ++r) peers.push_back({r, getpid(), "here", fmt::format("w{}", r)});
  std::vector<std::thread> threads;
  for (int r = 0; r < n; ++r)
    threads.emplace_back([&, r] {
      const double deadline = monotonic_s() + 20;
      if (kind == Kind::kMemory) return body(local.transport(r));
      if (kind == Kind::kShm) return body(make_shm_transport({name, 1, r, peers, 1 << 16}, deadline));
      auto rendezvous = make_file_rendezvous(directory);
      if (kind == Kind::kTcp)
        return body(make_tcp_transport({name, r, peers, "127.0.0.1", "secret"}, *rendezvous, deadline));
      body(make_gloo_transport({name, r, peers, "127.0.0.1"}, *rendezvous, deadline));
    });
  for (auto& t : threads) t.join();
  std::filesystem::remove_all(directory);
}

void with_communicators(Kind kind, int n, const std::function<void(Communicator&)>& body) {
  with_transports(kind, n, [&](std::unique_ptr<Transport> t) {
    auto c = make_communicator(std::move(t), 1, 20);
    body(*c);
  });
}

std::vector<float> leaf_data(int leaf, size_t elements) {
  std::vector<float> out(elements);
  for (size_t i = 0; i < elements; ++i) out[i] = random_normal({99, static_cast<uint64_t>(leaf)}, i) * 1e3f;
  return out;
}

// The single-process result: one accumulator over all leaves.
std::vector<float> truth(int virtual_ranks, size_t elements) {
  TreeAccumulator acc({0, virtual_ranks}, virtual_ranks, elements);
  for (int v = 0; v < virtual_ranks; ++v) {
    add_into(acc.open(v), leaf_data(v, elements).data(), elements);
    acc.close(v);
  }
  float* total = acc.partials().at(0);
  return {total, total + elements};
}

std::vector<float> tree_sum(Communicator& c, int virtual_ranks, size_t elements, bool scatter) {
  const auto spans = even_spans(c.size(), virtual_ranks);
  TreeAccumulator acc(spans[static_cast<size_t>(c.rank())], virtual_ranks, elements);
  for (int v = acc.span().begin; v < acc.span().end; ++v) {
    add_into(acc.open(v), leaf_data(v, elements).data(), elements);
    acc.close(v);
  }
  const auto partials = acc.partials();
  std::vector<float> out(scatter ? shard_of(elements, c.size(), c.rank()).size() : elements);
  if (scatter) c.tree_reduce_scatter(partials, elements, spans, out.data());
  else c.tree_all_reduce(partials, elements, spans, out.data());
  return out;
}

TEST(TreeSum, SameBitsForEveryWorkerCount) {
  for (int virtual_ranks : {8, 11})
    for (size_t elements : {size_t{0}, size_t{1}, size_t{1000}, size_t{300000}}) {
      const auto expected = truth(virtual_ranks, elements);
      for (int n : {1, 2, 3, 4, 7, 8})
        with_communicators(Kind::kMemory, n, [&](Communicator& c) {
          const auto all = tree_sum(c, virtual_ranks, elements, false);
          EXPECT_TRUE(same_bytes(all.data(), expected.data(), elements * sizeof(float)))
              << "V=" << virtual_ranks << " workers=" << n << " elements=" << elements;
          const auto part = tree_sum(c, virtual_ranks, elements, true);
          EXPECT_TRUE(same_bytes(part.data(), expected.data() + shard_of(elements, n, c.rank()).begin,
                                 part.size() * sizeof(float)));
        });
    }
}

TEST(TreeSum, SameBitsOverEveryTransport) {
  const auto expected = truth(8, 50000);
  for (Kind kind : {Kind::kShm, Kind::kTcp, Kind::kGloo})
    for (int n : {2, 3})
      with_communicators(kind, n, [&](Communicator& c) {
        const auto all = tree_sum(c, 8, 50000, false);
        EXPECT_EQ(0, std::memcmp(all.data(), expected.data(), expected.size() * sizeof(float)))
            << kind_name(kind);
        EXPECT_EQ(c.transport(), kind_name(kind));
      });
}

// A plain sum in rank order gives other bits than the tree: the test above would not pass by accident.
TEST(TreeSum, OrderMatters) {
  const auto expected = truth(8, 1000);
  std::vector<float> plain(1000);
  for (int v = 0; v < 8; ++v) add_into(plain.data(), leaf_data(v, 1000).data(), 1000);
  EXPECT_NE(0, std::memcmp(plain.data(), expected.data(), 4000));
}

TEST(TreeSum, ResultMayOverwriteTheFirstPartial) {
  const auto expected = truth(4, 5000);
  with_communicators(Kind::kMemory, 4, [&](Communicator& c) {
    auto mine = leaf_data(c.rank(), 5000);
    c.all_reduce(std::span<float>(mine));
    EXPECT_EQ(0, std::memcmp(mine.data(), expected.data(), 20000));
  });
}

TEST(TreeSum, WorkersBeyondTheVirtualRanksOnlyHelp) {
  const auto expected = truth(3, 9000);
  with_communicators(Kind::kMemory, 5, [&](Communicator& c) {
    const auto all = tree_sum(c, 3, 9000, false);
    EXPECT_EQ(0, std::memcmp(all.data(), expected.data(), 36000));
  });
}

TEST(TreeSum, WrongBufferCountIsAUsageError) {
  with_communicators(Kind::kMemory, 1, [&](Communicator& c) {
    std::vector<float> x(4);
    EXPECT_THROW(c.tree_all_reduce({}, 4, even_spans(1, 4), x.data()), Error);
  });
}

std::span<std::byte> bytes_of(std::vector<float>& v) { return std::as_writable_bytes(std::span(v)); }

// Every collective once, checked against what it must give. Used plain and under faults.
void collective(int which, Communicator& c, size_t elements) {
  const int n = c.size(), r = c.rank();
  std::vector<float> mine(elements, static_cast<float>(r + 1));
  switch (which) {
    case 0:
      return c.barrier();
    case 1: {
      c.broadcast(bytes_of(mine), n - 1);
      for (float x : mine) ASSERT_EQ(x, static_cast<float>(n));
      return;
    }
    case 2: {
      std::vector<float> all(elements * static_cast<size_t>(n));
      c.all_gather(std::as_bytes(std::span(mine)), bytes_of(all));
      for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], static_cast<float>(i / elements + 1));
      return;
    }
    case 3: {
      std::vector<double> x(elements, r);
      c.all_reduce(std::span(x), Reduce::kSum);
      for (double v : x) ASSERT_EQ(v, n * (n - 1) / 2.0);
      return;
    }
    case 4:
      c.all_reduce(std::span(mine));
      for (float x : mine) ASSERT_EQ(x, static_cast<float>(n * (n + 1) / 2));
      return;
    case 5: {
      std::vector<float> part(shard_of(elements, n, r).size());
      c.reduce_scatter(mine, part);
      for (float x : part) ASSERT_EQ(x, static_cast<float>(n * (n + 1) / 2));
      return;
    }
    case 6: {
      std::vector<float> in(elements);
      c.exchange(std::as_bytes(std::span(mine)), (r + 1) % n, bytes_of(in), (r + n - 1) % n);
      for (float x : in) ASSERT_EQ(x, static_cast<float>((r + n - 1) % n + 1));
      return;
    }
    case 7: {
      std::vector<size_t> begins(static_cast<size_t>(n) + 1);
      std::vector<float> all(elements * static_cast<size_t>(n), static_cast<float>(r + 1));
      for (int i = 0; i <= n; ++i)
        begins[static_cast<size_t>(i)] = elements * sizeof(float) * static_cast<size_t>(i);
      c.all_gather_parts(bytes_of(all), begins);
      for (size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], static_cast<float>(i / elements + 1));
      return;
    }
    default:
      if (r == 0) c.send(std::as_bytes(std::span(mine)), n - 1);
      if (r == n - 1) {
        c.receive(bytes_of(mine), 0);
        for (float x : mine) ASSERT_EQ(x, 1.0f);
      }
  }
}
constexpr int kCollectives = 9;

TEST(Collectives, GiveTheRightAnswer) {
  for (Kind kind : {Kind::kMemory, Kind::kShm, Kind::kTcp, Kind::kGloo})
    for (int n : kind == Kind::kMemory ? std::vector<int>{2, 3, 4, 5, 8} : std::vector<int>{2, 3})
      with_communicators(kind, n, [&](Communicator& c) {
        for (int which = 0; which < kCollectives; ++which)
          for (size_t elements : {size_t{0}, size_t{1}, size_t{1000}, size_t{300001}})
            collective(which, c, elements);
      });
  with_communicators(Kind::kMemory, 1, [&](Communicator& c) {
    for (int which = 0; which < kCollectives - 3; ++which) collective(which, c, 10);
  });
}

TEST(Collectives, MaxAndMin) {
  with_communicators(Kind::kMemory, 3, [&](Communicator& c) {
    std::vector<int64_t> x{c.rank(), -c.rank()};
    c.all_reduce(std::span(x), Reduce::kMax);
    EXPECT_EQ(x, (std::vector<int64_t>{2, 0}));
    std::vector<double> y{1.5 * c.rank()};
    c.all_reduce(std::span(y), Reduce::kMin);
    EXPECT_EQ(y[0], 0.0);
  });
}

// The sweep: collective x fault x workers x elements. Nobody outlives the deadline; nobody gets a wrong
// answer in silence; whoever fails names somebody.
TEST(Faults, NoHangOutlivesItsDeadline) {
  constexpr double kDeadline = 0.03,
                   kSlack = 5.0;  // slack: the machine may be busy; a hang would be for ever
  int failed = 0, cases = 0;
  for (FaultKind fault : {FaultKind::kDrop, FaultKind::kDelay, FaultKind::kHang, FaultKind::kHalfOpen})
    for (int n : {2, 3, 4})
      for (size_t elements : {size_t{0}, size_t{1}, size_t{1000}})
        for (int which = 0; which < kCollectives; ++which) {
          ++cases;
          std::atomic<int> errors{0}, fired{0};
          with_transports(Kind::kMemory, n, [&](std::unique_ptr<Transport> t) {
            const int rank = t->rank();
            auto faulty = std::make_unique<FaultTransport>(
                std::move(t), rank == n - 1 ? Fault{fault, 0, 0.01, 0} : Fault{});
            auto* watch = faulty.get();
            // A delay must not be an error, however busy the machine: it alone gets time.
            auto c = make_communicator(std::move(faulty), 3, fault == FaultKind::kDelay ? 30 : kDeadline);
            const double start = monotonic_s();
            try {
              collective(which, *c, elements);
            } catch (const PeerError& e) {
              ++errors;
              EXPECT_NE(std::string(e.what()).find("rank"), std::string::npos) << e.what();
              EXPECT_THROW(c->barrier(), PeerError);  // finished is finished
            }
            if (fault != FaultKind::kDelay) {
              EXPECT_LT(monotonic_s() - start, kDeadline + kSlack);
            }
            if (watch->fired()) ++fired;
          });
          if (fault == FaultKind::kDelay) {
            EXPECT_EQ(errors, 0);
          } else if (fired > 0) {
            EXPECT_GT(errors, 0) << "fault " << static_cast<int>(fault) << " collective " << which;
          }
          failed += errors > 0;
        }
  EXPECT_GT(failed, cases / 2);
}

// Whoever is accused first: from the accounts of all it can be read that the message was sent and did not arrive.
TEST(Faults, ALostMessageShowsInTheAccounts) {
  constexpr int kRanks = 4;
  for (Kind kind : {Kind::kMemory, Kind::kTcp})
    for (int which : {1, 2, 3})
      for (int from = 0; from < kRanks; ++from) {
        std::vector<Standing> said(kRanks);
        std::atomic<bool> fired{false};
        with_transports(kind, kRanks, [&](std::unique_ptr<Transport> t) {
          const auto rank = static_cast<size_t>(t->rank());
          auto faulty = std::make_unique<FaultTransport>(
              std::move(t), static_cast<int>(rank) == from ? Fault{FaultKind::kDrop, 0, 0, 0} : Fault{});
          auto* watch = faulty.get();
          auto c = make_communicator(std::move(faulty), 3, 0.2);
          try {
            collective(which, *c, 1000);
            c->barrier();  // ranks that were not the loser's neighbours go on, and miss the others here
          } catch (const PeerError&) {
          }
          if (watch->fired()) fired = true;
          said[rank] = c->standing();
        });
        if (!fired) continue;  // a leaf of the broadcast's tree sends nothing
        int losses = 0;
        for (size_t r = 0; r < kRanks; ++r)
          losses += said[r].waits_on == from && said[r].message >= 0 &&
                    said[static_cast<size_t>(from)].sent[r] > static_cast<uint64_t>(said[r].message);
        EXPECT_GE(losses, 1) << kind_name(kind) << ", collective " << which << ", from " << from;
      }
}

TEST(Faults, NetworksKeepTheDeadlineToo) {
  for (Kind kind : {Kind::kTcp, Kind::kGloo})
    for (auto [fault, which] : {std::pair{FaultKind::kDrop, 0},
                                {FaultKind::kDrop, 4},
                                {FaultKind::kHang, 1},
                                {FaultKind::kHang, 4},
                                {FaultKind::kHalfOpen, 2}})
      with_transports(kind, 3, [&](std::unique_ptr<Transport> t) {
        const int rank = t->rank();
        auto c = make_communicator(
            std::make_unique<FaultTransport>(std::move(t), rank == 2 ? Fault{fault, 0, 0, 0} : Fault{}), 3,
            0.2);
        const double start = monotonic_s();
        try {
          collective(which, *c, 1000);
        } catch (const PeerError&) {
        }
        EXPECT_LT(monotonic_s() - start, 5.0);
      });
}

// A flip on the way into the sum reaches every rank alike; a flip on the way out leaves the ranks different.
TEST(Faults, OneFlippedBitChangesOneElementAndRaisesNothing) {
  for (size_t elements :
       {size_t{100}, 2 * kShardBlock}) {  // one block: rank 0 only sends results; two: partials first
    std::atomic<int> wrong{0};
    with_transports(Kind::kMemory, 2, [&](std::unique_ptr<Transport> t) {
      const int rank = t->rank();
      auto c = make_communicator(std::make_unique<FaultTransport>(
                                     std::move(t), rank == 0 ? Fault{FaultKind::kFlipBit, 0, 0, 3} : Fault{}),
                                 1, 5);
      std::vector<float> x(elements, 1.0f);
      c->all_reduce(std::span(x));
      for (float v : x) wrong += v != 2.0f;
    });
    EXPECT_EQ(wrong, elements == 100 ? 1 : 2);
  }
}

TEST(Faults, DriftedRanksAreFoundOut) {
  for (Kind kind : {Kind::kMemory, Kind::kTcp})
    with_communicators(kind, 2, [&](Communicator& c) {
      std::vector<float> x(c.rank() == 0 ? 10 : 11);
      try {
        c.broadcast(bytes_of(x), 0);
        if (c.rank() == 1) FAIL() << "a broadcast of different sizes went through";
      } catch (const PeerError& e) {
        EXPECT_NE(std::string(e.what()).find("out of step"), std::string::npos) << e.what();
      }
    });
}

TEST(Faults, AbortFromAnotherThreadEndsAWait) {
  for (Kind kind : {Kind::kMemory, Kind::kTcp, Kind::kGloo})
    with_communicators(kind, 2, [&](Communicator& c) {
      if (c.rank() == 1) {  // never comes, but stays alive until rank 0 has given up
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        return;
      }
      const double start = monotonic_s();
      std::thread watchdog([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        c.abort("generation 2 has begun");
      });
      try {
        c.barrier();
        ADD_FAILURE() << "barrier passed without rank 1";
      } catch (const PeerError& e) {
        EXPECT_NE(std::string(e.what()).find("generation 2 has begun"), std::string::npos) << e.what();
      }
      EXPECT_LT(monotonic_s() - start, 10);
      watchdog.join();
    });
}

// Real processes: one is killed in the middle of its step, the others name it.
TEST(Faults, AKilledProcessIsNamed) {
  for (auto [kind, signal] : {std::pair{Kind::kShm, SIGKILL},
                              {Kind::kShm, SIGSTOP},
                              {Kind::kTcp, SIGKILL},
                              {Kind::kTcp, SIGSTOP}}) {
    const std::string run = fresh_name();
    const std::string directory = (std::filesystem::temp_directory_path() / ("stoker_" + run)).string();
    constexpr int kRanks = 3;
    int pids_pipe[2], report[2];
    ASSERT_EQ(pipe(pids_pipe), 0);
    ASSERT_EQ(pipe(report), 0);
    std::vector<pid_t> pids;
    for (int r = 0; r < kRanks; ++r) {
      const pid_t pid = fork();
      if (pid == 0) {
        pid_t all[kRanks];
        if (read(pids_pipe[0], all, sizeof all) != sizeof all) _exit(9);
        std::vector<PeerInfo> peers;
        for (int i = 0; i < kRanks; ++i) peers.push_back({i, all[i], "here", fmt::format("w{}", i)});
        int culprit = -2;
        try {
          const double deadline = monotonic_s() + 20;
          auto rendezvous = make_file_rendezvous(directory);
          auto c = make_communicator(
              kind == Kind::kShm
                  ? make_shm_transport({run, 7, r, peers, 1 << 16}, deadline)
                  : make_tcp_transport({run, r, peers, "127.0.0.1", "secret"}, *rendezvous, deadline),
              7, 1.0);
          std::vector<float> x(100000, 1.0f);
          for (int step = 0;; ++step) {
            if (r == 1 && step == 3) kill(getpid(), signal);
            c->all_reduce(std::span(x));
          }
        } catch (const PeerError& e) {
          culprit = e.peer();
        } catch (const std::exception&) {
        }
        (void)!write(report[1], &culprit, sizeof culprit);
        for (;;) pause();  // one that left at once would look like another culprit to whoever looks later
      }
      pids.push_back(pid);
    }
    for (int copies = 0; copies < kRanks;
         ++copies)  // one write is one read: small writes to a pipe are whole
      ASSERT_EQ(write(pids_pipe[1], pids.data(), kRanks * sizeof(pid_t)),
                static_cast<ssize_t>(kRanks * sizeof(pid_t)));
    for (int i = 0; i < 2; ++i) {
      int culprit = -3;
      ASSERT_EQ(read(report[0], &culprit, sizeof culprit), static_cast<ssize_t>(sizeof culprit));
      EXPECT_EQ(culprit, 1) << kind_name(kind) << ", signal " << signal;
    }
    for (pid_t p : pids) kill(p, SIGKILL);
    for (pid_t p : pids) waitpid(p, nullptr, 0);
    for (int fd : {pids_pipe[0], pids_pipe[1], report[0], report[1]}) close(fd);
    std::filesystem::remove_all(directory);
    EXPECT_EQ(remove_segments(run), 0);  // unlinked at formation: nothing is left after kill -9
  }
}

// While the ranks connect, strangers dial the same ports: garbage, silence, a worker of another run. The ranks still meet.
TEST(Strangers, AreTurnedAwayAndDisturbNobody) {
  const std::string name = fresh_name();
  const std::string directory = (std::filesystem::temp_directory_path() / ("stoker_" + name)).string();
  std::vector<PeerInfo> peers;
  for (int r = 0; r < 3; ++r) peers.push_back({r, getpid(), "here", fmt::format("w{}", r)});
  std::atomic<int> strangers{0};
  std::vector<std::thread> threads;
  threads.emplace_back([&] {  // rank 0 listens first; the others come only after the strangers
    auto c = make_communicator(make_tcp_transport({name, 0, peers, "127.0.0.1", "secret"},
                                                  *make_file_rendezvous(directory), monotonic_s() + 20),
                               1, 20);
    std::vector<float> x(1000, 1.0f);
    c->all_reduce(std::span(x));
    EXPECT_EQ(x[999], 3.0f);
  });
  const std::string address = make_file_rendezvous(directory)->get(name + "/tcp/0", monotonic_s() + 20);
  std::vector<int> open_fds;
  const auto dial = [&](std::string_view text) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(static_cast<uint16_t>(net::parse_address(address).port));
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    if (!text.empty()) {
      ASSERT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    }
    open_fds.push_back(fd);
    ++strangers;
  };
  for (int i = 0; i < 100; ++i) dial("");  // more than may wait unproven
  dial("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  dial(std::string(4096, '\xff'));
  net::Greeting other_run("another secret", name, 1), other_generation("secret", name + "x", 1);
  dial(other_run.call(0) + std::string(32, 'p'));
  dial(other_generation.call(0));
  // A worker with the wrong token is told so, at its deadline. The last rank: the address that it leaves behind is dialled by nobody.
  try {
    make_tcp_transport({name, 2, peers, "127.0.0.1", "wrong"}, *make_file_rendezvous(directory),
                       monotonic_s() + 2);
    ADD_FAILURE() << "a worker with another token got in";
  } catch (const PeerError& e) {
    EXPECT_EQ(e.peer(), 0);
    EXPECT_NE(std::string(e.what()).find("token"), std::string::npos) << e.what();
  }
  for (int r = 1; r < 3; ++r)
    threads.emplace_back([&, r] {
      auto c = make_communicator(make_tcp_transport({name, r, peers, "127.0.0.1", "secret"},
                                                    *make_file_rendezvous(directory), monotonic_s() + 20),
                                 1, 20);
      std::vector<float> x(1000, 1.0f);
      c->all_reduce(std::span(x));
      EXPECT_EQ(x[0], 3.0f);
    });
  for (auto& t : threads) t.join();
  for (int fd : open_fds) close(fd);
  std::filesystem::remove_all(directory);
}

TEST(FlightRecorder, KeepsTheLastCallsAndSaysWhere) {
  const std::string path = (std::filesystem::temp_directory_path() / fresh_name()).string();
  FlightRecorder recorder(path);
  recorder.phase("backward", 17);
  with_transports(Kind::kMemory, 2, [&](std::unique_ptr<Transport> t) {
    const bool watched = t->rank() == 0;
    auto c = make_communicator(std::move(t), 5, 0.1, watched ? &recorder : nullptr);
    for (int i = 0; i < 200; ++i) c->barrier();
    if (watched) {
      EXPECT_THROW(c->barrier(), PeerError);
    }
    if (!watched) std::this_thread::sleep_for(std::chrono::milliseconds(200));
  });
  const FlightRecord record = read_flight_record(path);
  EXPECT_EQ(record.pid, getpid());
  EXPECT_EQ(record.generation, 5u);
  EXPECT_EQ(record.phase, "backward");
  EXPECT_EQ(record.step, 17);
  ASSERT_EQ(record.calls.size(), FlightRecorder::kCalls);
  EXPECT_EQ(record.calls.back().sequence, 201u);
  EXPECT_EQ(record.calls.back().state, CallState::kFailed);
  EXPECT_EQ(record.calls.back().waiting_on, 1);
  EXPECT_NE(last_call(record, 0).find("barrier #201"), std::string::npos);
  std::filesystem::resize_file(path, 100);
  EXPECT_THROW(read_flight_record(path), Error);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace stoker::comm
