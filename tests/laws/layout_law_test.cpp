// The law of layouts: the weights after n steps are the same bytes for every number of workers, ZeRO stage, pipeline split and
// schedule, with and without recomputation, audited or not, and through the death of a worker. Real training of a small model by the
// real trainer, in real processes over shared
// memory; a worker dies by kill -9 in the middle of a step.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "checkpoint/store.h"
#include "data/shard/token_file.h"
#include "elastic/coordinator.h"
#include "io/atomic_write.h"
#include "net/tls_identity.h"
#include "train/ledger.h"
#include "train/trainer.h"

namespace stoker {
namespace {

constexpr int64_t kSteps = 5, kBatch = 8;

class Law : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = (std::filesystem::temp_directory_path() / fmt::format("stoker_law_{}", getpid())).string();
    std::filesystem::create_directories(root_ + "/data");
    make_dataset();
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(root_); }

  static void put(const std::string& name, const std::string& text) {
    io::write_file_atomic(io::real_file_system(), root_ + "/data/" + name, text);
  }
  static void make_dataset() {
    put("tokenizer.json", "{}");
    put("sources.jsonl", "");
    data::Manifest m;
    m.tokenizer = {{"tokenizer.json", 2, hash128("{}")}, 500, 0, -1};
    m.sources = {"sources.jsonl", 0, hash128("")};
    data::SplitRecord split{"train", 0, 0, 0, {}};
    data::ShardWriter writer(io::real_file_system(), root_ + "/data", "train_00000",
                             data::TokenType::kUint16);
    for (uint64_t d = 0; d < 60; ++d) {
      std::vector<int32_t> tokens;
      for (uint64_t i = 0; i < 40; ++i)
        tokens.push_back(static_cast<int32_t>(1 + random_u64({7, d}, i / 2) % 499));
      tokens.push_back(0);
      writer.add(tokens, {hash128("t"), 5, 0, 0});
    }
    split.add(writer.finish());
    m.splits.push_back(split);
    put("manifest.json", m.to_json());
  }

  using Settings = std::vector<std::string>;  // as --set

  static train::Recipe recipe(const std::string& run, const Settings& settings) {
    return train::parse_recipe(fmt::format(R"(
[run]
dir = "{}"
[model]
family = "llama"
layers = 4
hidden = 64
heads = 4
kv_heads = 2
ffn = 160
vocab = 512
tied_embeddings = true
[data]
path = "{}/data"
sequence_length = 32
[train]
seed = 3
threads = 1
steps = {}
global_batch = {}
micro_batch = 1
virtual_ranks = 8
precision = "fp32"
[checkpoint]
every = 1000
)",
                                           run, root_, kSteps, kBatch),
                               "law", settings);
  }

  // One worker process. dies_at: kills itself while it computes that step.
  [[noreturn]] static void worker(const std::string& run, const std::string& name, const Settings& settings,
                                  const std::string& token, int address_pipe, bool dies) {
    int code = 1;
    try {
      int port = 0;
      if (read(address_pipe, &port, sizeof port) != sizeof port) _exit(2);
      train::TeamConfig config;
      config.link.coordinator = {"127.0.0.1", port};
      config.link.token = token;
      config.link.who = {name, "here", getpid(), "127.0.0.1", ""};
      config.link.heartbeat_s = 0.05;
      config.run = fmt::format("law{:x}", hash64(run));
      train::Team team(config, 8);
      train::TrainerHooks hooks;
      hooks.quiet = true;
      hooks.team = &team;
      hooks.timeout_s = 60;
      hooks.audit_every = 3;  // workers that repeat one another's work change nothing
      std::thread executioner;
      if (dies)
        executioner = std::thread([&run] {
          while (train::check_ledger(run + "/ledger.jsonl", kSteps, kBatch).batches < 2)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
          kill(getpid(), SIGKILL);
        });
      train::Trainer trainer(recipe(run, settings), hooks, io::real_file_system());
      trainer.run();
      code = 0;
    } catch (const elastic::Released&) {
      code = 0;
    } catch (const std::exception& e) {
      fmt::print(stderr, "{}: {}\n", name, e.what());
    }
    _exit(code);
  }

  static std::string weights(const std::string& run) {
    return checkpoint::Store(io::real_file_system(), run + "/checkpoints")
        .open_latest(true)
        .weights_hash()
        .hex();
  }

  // What one worker makes of the settings that decide the bits.
  static std::string single(const Settings& settings = {}) {
    std::string run = root_ + "/single";
    for (const std::string& s : settings) run += "," + s;
    if (!std::filesystem::exists(run)) {
      const pid_t pid = fork();  // the parent must stay without threads: it forks the others
      if (pid == 0) {
        try {
          train::TrainerHooks hooks;
          hooks.quiet = true;
          train::Trainer(recipe(run, settings), hooks, io::real_file_system()).run();
        } catch (const std::exception& e) {
          fmt::print(stderr, "single: {}\n", e.what());
          _exit(1);
        }
        _exit(0);
      }
      int status = 0;
      waitpid(pid, &status, 0);
      EXPECT_EQ(status, 0);
    }
    return weights(run);
  }

  // The coordinator lives in a process of its own: gRPC and fork do not mix.
  static std::string team(int workers, const Settings& settings, int victim = -1) {
    std::string run = fmt::format("{}/w{}v{}", root_, workers, victim);
    for (const std::string& s : settings) run += "," + s;
    const std::string token = net::new_token();
    int addresses[2];
    if (pipe(addresses) != 0) ADD_FAILURE() << "pipe";
    std::vector<pid_t> pids;
    for (int w = 0; w < workers; ++w) {
      const pid_t pid = fork();
      if (pid == 0) worker(run, fmt::format("w{}", w), settings, token, addresses[0], w == victim);
      pids.push_back(pid);
    }
    int done[2];
    if (pipe(done) != 0) ADD_FAILURE() << "pipe";
    const pid_t coordinator = fork();
    if (coordinator == 0) {
      elastic::CoordinatorConfig config;
      config.membership.target = workers;
      config.membership.heartbeat_timeout_s =
          30;  // a busy test machine is not a dead worker; deaths show at once
      config.token = token;
      elastic::Coordinator c(config);
      const int port = c.address().port;
      for (int w = 0; w < workers; ++w)
        if (write(addresses[1], &port, sizeof port) != sizeof port) _exit(1);
      char end = 0;
      (void)!read(done[0], &end, 1);
      _exit(0);
    }
    for (int w = 0; w < workers; ++w) {
      int status = 0;
      waitpid(pids[static_cast<size_t>(w)], &status, 0);
      if (w == victim) EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
      else EXPECT_EQ(status, 0) << "worker " << w << " of " << workers;
    }
    (void)!write(done[1], "x", 1);
    waitpid(coordinator, nullptr, 0);
    for (int fd : {addresses[0], addresses[1], done[0], done[1]}) close(fd);
    const auto batch = static_cast<uint64_t>(recipe(run, settings).global_batch);
    const auto check = train::check_ledger(run + "/ledger.jsonl", kSteps, batch);
    EXPECT_EQ(check.batches, static_cast<uint64_t>(kSteps));
    EXPECT_EQ(check.lost, 0u);
    EXPECT_EQ(check.repeated, 0u);
    return weights(run);
  }

  static inline std::string root_;
};

TEST_F(Law, AnyNumberOfWorkersGivesTheSameWeights) {
  const std::string truth = single();
  for (int workers : {1, 2, 3, 4, 7, 8}) EXPECT_EQ(team(workers, {}), truth) << workers << " workers";
}

TEST_F(Law, ShardingGivesTheSameWeights) {
  const std::string truth = single();
  for (const char* zero : {"layout.zero_stage=1", "layout.zero_stage=2", "layout.zero_stage=3"})
    for (int workers : {2, 3, 4, 7, 8}) EXPECT_EQ(team(workers, {zero}), truth) << zero << ", " << workers;
  EXPECT_EQ(team(3, {"layout.zero_stage=3", "train.recompute=full"}), truth);
  EXPECT_EQ(team(3, {"layout.zero_stage=3", "train.recompute=selective"}), truth);
}

TEST_F(Law, PipelinesGiveTheSameWeights) {
  const std::string truth = single();
  const Settings two{"layout.pipeline=2"}, four{"layout.pipeline=4"};
  EXPECT_EQ(team(2, two), truth);
  EXPECT_EQ(team(4, four), truth);
  EXPECT_EQ(team(4, {"layout.pipeline=2", "layout.zero_stage=1"}), truth);
  EXPECT_EQ(team(7, {"layout.pipeline=2", "train.recompute=full"}), truth) << "one spare";
  EXPECT_EQ(team(8, {"layout.pipeline=4", "layout.zero_stage=1", "train.recompute=selective"}), truth);
}

TEST_F(Law, SchedulesGiveTheSameWeights) {
  const std::string truth = single();
  EXPECT_EQ(team(2, {"layout.pipeline=2", "layout.schedule=interleaved", "layout.virtual_stages=2"}), truth);
  EXPECT_EQ(team(4, {"layout.pipeline=4", "layout.schedule=zero-bubble"}), truth);
  EXPECT_EQ(team(4, {"layout.pipeline=2", "layout.schedule=gpipe"}), truth);
}

// Several micro-batches a virtual rank, and an untied head: the other ways through the accumulation.
TEST_F(Law, SeveralMicroBatchesGiveTheSameWeights) {
  const Settings settings{"train.virtual_ranks=2", "train.global_batch=16", "model.tied_embeddings=false"};
  const std::string truth = single(settings);
  for (const char* schedule : {"1f1b", "zero-bubble"}) {
    Settings s = settings;
    s.insert(s.end(), {"layout.pipeline=2", std::string("layout.schedule=") + schedule});
    EXPECT_EQ(team(2, s), truth) << schedule;
    EXPECT_EQ(team(4, s), truth) << schedule;
    s.push_back("layout.zero_stage=2");
    EXPECT_EQ(team(4, s), truth) << schedule;
  }
  for (const char* zero : {"layout.zero_stage=2", "layout.zero_stage=3"}) {
    Settings s = settings;
    s.push_back(zero);
    EXPECT_EQ(team(2, s), truth) << zero;
    EXPECT_EQ(team(3, s), truth) << zero << ", one without virtual ranks";
  }
}

TEST_F(Law, ADeathDoesNotChangeTheWeights) {
  const std::string truth = single();
  for (const char* zero :
       {"layout.zero_stage=0", "layout.zero_stage=1", "layout.zero_stage=2", "layout.zero_stage=3"})
    for (int victim : {0, 2}) EXPECT_EQ(team(3, {zero}, victim), truth) << zero << ", rank of " << victim;
  EXPECT_EQ(team(2, {"layout.zero_stage=3"}, 1), truth) << "what was shared is whole again";
}

// Two pipelines of two: after the death one of them goes on with what the others hold, and a spare.
TEST_F(Law, ADeathInAPipelineDoesNotChangeTheWeights) {
  const std::string truth = single();
  for (int victim : {0, 3})
    EXPECT_EQ(team(4, {"layout.pipeline=2", "layout.zero_stage=1"}, victim), truth) << "rank of " << victim;
}

}  // namespace
}  // namespace stoker
