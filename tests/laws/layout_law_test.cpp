// The law of layouts: the weights after n steps are the same bytes for every number of workers, ZeRO stage, pipeline split and
// schedule, with and without recomputation, audited or not, and through the death of a worker. Real training of a small model by the
// real trainer, in real processes over shared
// memory; a worker dies by kill -9 in the middle of a step.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
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

std::vector<std::string> with(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class Law : public testing::Test {
 public:
  using Settings = std::vector<std::string>;  // as --set

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
      train::Team team(config, recipe(run, settings).virtual_ranks);
      train::TrainerHooks hooks;
      hooks.quiet = true;
      hooks.team = &team;
      hooks.timeout_s = 60;
      hooks.until = until_;
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
    } catch (const Error& e) {
      code = until_ && e.kind() == ErrorKind::kCancelled ? 0 : 1;
      if (code) fmt::print(stderr, "{}: {}\n", name, e.what());
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

  static std::string run_of(const std::string& run, const Settings& settings) {
    return fmt::format("{}-{:x}", run, hash64(fmt::format("{}", fmt::join(settings, ","))));
  }
  static std::string single_run(const Settings& settings) { return run_of(root_ + "/single", settings); }
  static std::string team_run(int workers, const Settings& settings, int victim = -1) {
    return run_of(fmt::format("{}/w{}v{}", root_, workers, victim), settings);
  }

  // What one worker makes of the settings that decide the bits.
  static std::string single(const Settings& settings = {}, std::string run = "") {
    const bool resumes = !run.empty();
    if (!resumes) run = single_run(settings);
    if (resumes || !std::filesystem::exists(run)) {
      const pid_t pid = fork();  // the parent must stay without threads: it forks the others
      if (pid == 0) {
        try {
          train::TrainerHooks hooks;
          hooks.quiet = true;
          hooks.until = until_;
          train::Trainer(recipe(run, settings), hooks, io::real_file_system()).run();
        } catch (const Error& e) {
          if (until_ && e.kind() == ErrorKind::kCancelled) _exit(0);
          fmt::print(stderr, "single: {}\n", e.what());
          _exit(1);
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
  static std::string team(int workers, const Settings& settings, int victim = -1, std::string run = "") {
    const bool resumes = !run.empty();
    if (!resumes) run = team_run(workers, settings, victim);
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
    if (resumes || until_) return weights(run);
    const train::Recipe said = recipe(run, settings);
    const auto steps = static_cast<uint64_t>(said.steps);
    const auto check =
        train::check_ledger(run + "/ledger.jsonl", steps, static_cast<uint64_t>(said.global_batch));
    EXPECT_EQ(check.batches, steps);
    EXPECT_EQ(check.lost, 0u);
    EXPECT_EQ(check.repeated, 0u);
    return weights(run);
  }

  // A run that has stopped after three steps and saved; 0 workers: a process alone.
  static std::string begun(int workers, const Settings& settings) {
    until_ = 3;
    const std::string run = fmt::format("{}/begun{}", root_, ++begun_);
    if (workers) team(workers, settings, -1, run);
    else single(settings, run);
    until_ = 0;
    return run;
  }

  // Of all weights together: the root of the sum of squared differences.
  static double distance(const std::string& run, const std::string& other, const Settings& settings) {
    const checkpoint::Store a(io::real_file_system(), run + "/checkpoints"),
        b(io::real_file_system(), other + "/checkpoints");
    const checkpoint::Checkpoint x = a.open_latest(), y = b.open_latest();
    double sum = 0;
    for (const ParameterRow& row : parameter_table(recipe(run, settings).model)) {
      std::vector<float> left(static_cast<size_t>(row.count())), right(left.size());
      const Shape shape{std::span<const int64_t>(row.shape)};
      x.load(row.name, view_of(left.data(), shape));
      y.load(row.name, view_of(right.data(), shape));
      for (size_t i = 0; i < left.size(); ++i)
        sum += std::pow(static_cast<double>(left[i]) - static_cast<double>(right[i]), 2);
    }
    return std::sqrt(sum);
  }

  static inline std::string root_;
  static inline int64_t until_ = 0;
  static inline int begun_ = 0;
};

TEST_F(Law, AnyNumberOfWorkersGivesTheSameWeights) {
  const std::string truth = single();
  for (int workers : {1, 2, 3, 4, 7, 8}) EXPECT_EQ(team(workers, {}), truth) << workers << " workers";
}

// One choice of each factor. Every pair of choices that can go together is tried in some run; STOKER_ALL_LAYOUTS=3 tries every
// triple, 6 (there are six factors) every combination.
struct Choice {
  Law::Settings settings;
  int workers = 1;  // this many times as many
};
using Factor = std::vector<Choice>;

const std::vector<Factor> kFactors{
    {{{"layout.zero_stage=0"}},
     {{"layout.zero_stage=1"}},
     {{"layout.zero_stage=2"}},
     {{"layout.zero_stage=3"}}},
    {{{"layout.pipeline=1"}},
     {{"layout.pipeline=2"}, 2},
     {{"layout.pipeline=4"}, 4},
     {{"layout.pipeline=2", "layout.schedule=interleaved", "layout.virtual_stages=2"}, 2},
     {{"layout.pipeline=2", "layout.schedule=zero-bubble"}, 2},
     {{"layout.pipeline=4", "layout.schedule=zero-bubble"}, 4},
     {{"layout.pipeline=2", "layout.schedule=gpipe"}, 2}},
    {{{}, 1}, {{}, 2}, {{}, 3}, {{}, 4}, {{}, 7}, {{}, 8}},
    {{{}},
     {{"layout.tensor=2"}, 2},
     {{"layout.tensor=2", "layout.sequence_parallel=true"}, 2},
     {{"layout.context=2"}, 2},
     {{"layout.tensor=2", "layout.sequence_parallel=true", "layout.context=2"}, 4}},
    {{{"train.steps=3"}},
     {{"train.steps=3", "train.virtual_ranks=4"}},
     {{"train.steps=3", "train.virtual_ranks=3", "train.global_batch=12", "model.tied_embeddings=false"}}},
    {{{}}, {{"train.recompute=selective"}}, {{"train.recompute=full"}}},
};
enum { kZero, kPipeline, kReplicas, kClass, kModel, kRecompute };

using Combination = std::vector<size_t>;  // a choice of each factor

int workers_of(const Combination& c) {
  int n = 1;
  for (size_t f = 0; f < c.size(); ++f) n *= kFactors[f][c[f]].workers;
  return n;
}
Law::Settings settings_of(const Combination& c, std::initializer_list<int> factors) {
  Law::Settings out;
  for (const int f : factors)
    for (const std::string& s : kFactors[static_cast<size_t>(f)][c[static_cast<size_t>(f)]].settings)
      out.push_back(s);
  return out;
}

std::vector<Combination> combinations() {
  std::vector<Combination> out{{}};
  for (const Factor& factor : kFactors) {
    std::vector<Combination> longer;
    for (const Combination& c : out)
      for (size_t i = 0; i < factor.size(); ++i) {
        longer.push_back(c);
        longer.back().push_back(i);
      }
    out = std::move(longer);
  }
  std::erase_if(out, [](const Combination& c) {
    const auto text = fmt::format("{}", fmt::join(settings_of(c, {kPipeline, kRecompute}), " "));
    return workers_of(c) > 8 ||
           (text.find("zero-bubble") != std::string::npos && text.find("recompute") != std::string::npos);
  });
  return out;
}

// Every choice of so many positions out of six.
std::vector<std::vector<size_t>> choose(size_t strength, size_t from, size_t first = 0) {
  if (strength == 0) return {{}};
  std::vector<std::vector<size_t>> out;
  for (size_t i = first; i + strength <= from; ++i)
    for (std::vector<size_t>& rest : choose(strength - 1, from, i + 1)) {
      rest.insert(rest.begin(), i);
      out.push_back(std::move(rest));
    }
  return out;
}

// As few as a greedy choice finds, such that whatever so many factors choose together in one of `all` is in one of them.
std::vector<Combination> covering(const std::vector<Combination>& all, size_t strength) {
  const auto places = choose(strength, kFactors.size());
  const auto tuples = [&](const Combination& c) {  // a number for each
    std::vector<uint64_t> out;
    for (size_t p = 0; p < places.size(); ++p) {
      uint64_t number = p;
      for (const size_t f : places[p]) number = number * 10 + c[f];
      out.push_back(number);
    }
    return out;
  };
  std::vector<std::vector<uint64_t>> has;
  std::set<uint64_t> open;
  for (const Combination& c : all) {
    has.push_back(tuples(c));
    open.insert(has.back().begin(), has.back().end());
  }
  std::vector<Combination> out;
  while (!open.empty()) {
    size_t best = 0, most = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const auto n = static_cast<size_t>(
          std::count_if(has[i].begin(), has[i].end(), [&](uint64_t t) { return open.count(t) > 0; }));
      if (n > most) most = n, best = i;
    }
    out.push_back(all[best]);
    for (const uint64_t t : has[best]) open.erase(t);
  }
  return out;
}

// Layouts combine freely. Workers that share layers or rows add in an order of their own: each way of sharing is a class of bits, the
// same for any replicas, stages, schedule, shards, recomputation and repetition.
TEST_F(Law, EveryCombinationGivesTheBitsOfItsClass) {
  const char* asked = getenv("STOKER_ALL_LAYOUTS");
  const size_t strength = asked ? std::strtoul(asked, nullptr, 10) : 2;
  ASSERT_TRUE(strength >= 1 && strength <= kFactors.size())
      << "STOKER_ALL_LAYOUTS: expected 1 to " << kFactors.size() << ", found " << asked;
  const auto all = combinations(), tried = covering(all, strength);
  std::map<std::string, std::string> truths;
  const double began_s = monotonic_s();
  for (size_t i = 0; i < tried.size(); ++i) {
    const Combination& c = tried[i];
    const Settings same = settings_of(c, {kClass, kModel});
    std::string& truth = truths[fmt::format("{}", fmt::join(same, " "))];
    if (truth.empty()) {
      const int sharing = kFactors[kClass][c[kClass]].workers;
      truth = team(sharing, same);
      if (sharing > 1) {
        EXPECT_NE(truth, team(1, settings_of(c, {kModel}))) << fmt::format("{}", fmt::join(same, " "));
      }
    }
    const Settings settings = with(same, settings_of(c, {kZero, kPipeline, kRecompute}));
    const int workers = workers_of(c);
    const std::string what = fmt::format("{} workers: {}", workers, fmt::join(settings, " "));
    if (getenv("STOKER_SHOW")) fmt::print(stderr, "{}\n", what);
    const Settings apart = with(settings, {"checkpoint.keep_last=2"});  // from the run that made the truth
    EXPECT_EQ(team(workers, apart), truth) << what;
    std::filesystem::remove_all(team_run(workers, apart));
    if (asked && (i + 1) % 25 == 0)
      fmt::print(stderr, "{} of {} combinations, {:.0f} s\n", i + 1, tried.size(), monotonic_s() - began_s);
  }
  if (asked)
    fmt::print(
        "{} runs for every {} choices of {} combinations, {} classes of bits and models, in {:.0f} s\n",
        tried.size(), strength, all.size(), truths.size(), monotonic_s() - began_s);
}

// What does not fill another replica waits as a spare.
TEST_F(Law, SparesDoNotChangeTheWeights) {
  EXPECT_EQ(team(7, {"layout.pipeline=2", "layout.zero_stage=2"}), single());
  EXPECT_EQ(team(3, {"layout.tensor=2"}), team(2, {"layout.tensor=2"}));
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
    for (const char* zero : {"layout.zero_stage=1", "layout.zero_stage=3"})
      EXPECT_EQ(team(4, {"layout.pipeline=2", zero}, victim), truth) << zero << ", rank of " << victim;
}

struct Shared {
  Law::Settings settings;
  int workers;  // that share
};
const std::vector<Shared> kShared{
    {{"layout.tensor=2"}, 2},
    {{"layout.tensor=2", "layout.sequence_parallel=true"}, 2},
    {{"layout.context=2"}, 2},
    {{"layout.tensor=2", "layout.sequence_parallel=true", "layout.context=2"}, 4},
};

// The same layout again, and with more replicas, stages and shards: the same bytes.
TEST_F(Law, SharedLayersRepeatToTheByte) {
  for (const Shared& s : kShared) {
    const std::string truth = team(s.workers, s.settings),
                      what = fmt::format("{}", fmt::join(s.settings, " "));
    EXPECT_EQ(team(s.workers, s.settings, -1, root_ + "/again-" + what), truth) << what;
    for (const int replicas : {2, 3})
      if (s.workers * replicas <= 8) {
        EXPECT_EQ(team(s.workers * replicas, s.settings), truth) << what << ", " << replicas << " replicas";
      }
    EXPECT_NE(truth, single()) << what << ": a class of its own";
  }
}

// How far from a single worker. The single worker's own rounding error is its distance from a run whose kernels add in f64 and round
// once; a shared run makes the same roundings in another order, so it is as far from that run: twice the distance apart, and twice
// that because either error is one draw of many. SGD, for AdamW turns the sign of a gradient that is nothing but error into a whole
// step.
TEST_F(Law, SharedLayersStayWithinTheRoundingErrorOfASingleWorker) {
  const Settings sgd{"optimizer.name=sgd", "optimizer.learning_rate=0.5", "model.layers=2",
                     "data.sequence_length=16"};
  const Settings exact = with(sgd, {"train.kernels=linear_forward=ref,linear_backward_input=ref,"
                                    "linear_backward_weight=ref,attention_forward=ref,attention_backward=ref,"
                                    "cross_entropy=ref,norm_forward=ref,norm_backward=ref"});
  until_ = 2;
  single(sgd);
  single(exact);
  const double error = distance(single_run(sgd), single_run(exact), sgd);
  EXPECT_GT(error, 0);
  for (const Shared& s : kShared) {
    team(s.workers, with(sgd, s.settings));
    const double far = distance(team_run(s.workers, with(sgd, s.settings)), single_run(sgd), sgd);
    EXPECT_GT(far, 0);
    EXPECT_LE(far, 4 * error) << s.settings.front();
    if (getenv("STOKER_SHOW"))
      fmt::print("{}: {:.2g} from the single worker, whose error is {:.2g}\n", fmt::join(s.settings, " "),
                 far, error);
  }
}

// Each layout goes on with what the one before it in the circle has saved.
TEST_F(Law, AnyLayoutGoesOnWithAnyCheckpoint) {
  struct Layout {
    int workers;
    Settings settings;
  };
  const std::vector<Layout> plain{
      {0, {}},
      {3, {"layout.zero_stage=3"}},
      {4, {"layout.pipeline=2", "layout.zero_stage=2"}},
      {4, {"layout.zero_stage=2"}},
      {4, {"layout.pipeline=2", "layout.schedule=zero-bubble", "layout.zero_stage=3"}},
      {2, {"layout.pipeline=2", "layout.schedule=interleaved", "layout.virtual_stages=2"}},
      {6, {"layout.pipeline=2", "layout.zero_stage=3"}}};
  const std::vector<Layout> shared{{2, {}},
                                   {4, {"layout.zero_stage=3"}},
                                   {8, {"layout.zero_stage=2", "layout.pipeline=2"}},
                                   {4, {"layout.pipeline=2"}}};
  const auto go_round = [](const std::vector<Layout>& circle, const Settings& all, const std::string& truth) {
    for (size_t i = 0; i < circle.size(); ++i) {
      const Layout &from = circle[i], &to = circle[(i + 1) % circle.size()];
      const std::string run = begun(from.workers, with(from.settings, all));
      const Settings settings = with(to.settings, all);
      EXPECT_EQ(to.workers ? team(to.workers, settings, -1, run) : single(settings, run), truth)
          << fmt::format("{} -> {}", fmt::join(from.settings, " "), fmt::join(to.settings, " "));
    }
  };
  go_round(plain, {}, team(1, {}));
  go_round(shared, {"layout.tensor=2"}, team(2, {"layout.tensor=2"}));
}

// Checkpoints are of the whole model: into another class and back.
TEST_F(Law, SharedLayersGoOnWithAnyCheckpoint) {
  const Settings both = kShared[3].settings, sgd{"optimizer.name=sgd", "optimizer.learning_rate=0.5"};
  const std::string truth = team(4, both);
  EXPECT_EQ(team(8, with(both, {"layout.pipeline=2", "layout.zero_stage=1"}), -1, begun(4, both)), truth);
  EXPECT_EQ(team(4, both, -1, begun(8, with(both, {"layout.zero_stage=1"}))), truth);
  // Into another class and back to a single worker: near it.
  single(sgd);
  const std::string out = begun(0, sgd), back = begun(4, with(sgd, both));
  team(4, with(sgd, both), -1, out);
  single(sgd, back);
  for (const std::string& run : {out, back}) {
    const double far = distance(run, single_run(sgd), sgd);
    EXPECT_GT(far, 0);
    EXPECT_LT(far, 1e-5)
        << run;  // roundings of a few hundred thousand weights near 0.02; a wrong row would be 1e-2
    if (getenv("STOKER_SHOW")) fmt::print("continued: {:.2g} from the single worker\n", far);
  }
}

// Two replicas of two that share a width, then one and a spare.
TEST_F(Law, ADeathAmongSharedLayersDoesNotChangeTheWeights) {
  for (const size_t shared : {size_t{1}, size_t{2}}) {
    const Settings& settings = kShared[shared].settings;
    const std::string truth = team(2, settings);
    for (int victim : {0, 3})
      EXPECT_EQ(team(4, with(settings, {"layout.zero_stage=1"}), victim), truth)
          << settings.front() << ", rank of " << victim;
  }
}

}  // namespace
}  // namespace stoker
