#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/clock.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/stop.h"
#include "checkpoint/store.h"
#include "cli/command.h"
#include "cli/run_files.h"
#include "cli/run_view.h"
#include "io/atomic_write.h"
#include "io/file_system.h"
#include "train/ledger.h"
#include "train/recipe.h"

namespace stoker::cli {
namespace {

using nlohmann::json;
constexpr double kNameWithin_s = 10;
constexpr double kRecoverWithin_s = 60;
constexpr double kCalmBetween_s = 0.2;

struct Flags {
  std::string recipe, run = "chaos";
  std::vector<std::string> set,
      kinds{"kill", "stop", "coordinator", "flip-weights", "flip-gradients", "half-open", "drop"};
  int faults = 20, workers = 4, zero_stage = 0;
  uint64_t seed = 1;
  bool as_json = false, quiet = false;
};

struct FaultRecord {
  std::string kind, victim, named_by;
  double named_s = -1, recovery_s = -1;
};

struct Verdict {
  std::vector<FaultRecord> faults;
  bool identical = false;
  uint64_t lost = 0, repeated = 0, batches = 0;
  std::string undisturbed, disturbed;
  int64_t unnamed() const {
    return std::count_if(faults.begin(), faults.end(),
                         [](const FaultRecord& f) { return f.named_s < 0 || f.named_s > kNameWithin_s; });
  }
  double recovery_median(const std::string& kind) const {
    std::vector<double> times;
    for (const FaultRecord& f : faults)
      if (f.recovery_s >= 0 && (kind.empty() || f.kind == kind)) times.push_back(f.recovery_s);
    std::sort(times.begin(), times.end());
    return times.empty() ? -1 : times[times.size() / 2];
  }
};

class Experiment {
 public:
  explicit Experiment(const Flags& flags)
      : flags_(flags), recipe_(train::load_recipe(flags.recipe, flags.set)) {
    if (recipe_.steps < 1) fail(ErrorKind::kUsage, "stoker chaos: expected a recipe with train.steps");
    if (recipe_.virtual_ranks < flags.workers)
      fail(ErrorKind::kUsage,
           "train.virtual_ranks is {} and there are {} workers: expected at least as many virtual ranks",
           recipe_.virtual_ranks, flags.workers);
    const auto known = Flags{}.kinds;
    for (const std::string& kind : flags.kinds)
      if (std::find(known.begin(), known.end(), kind) == known.end())
        fail(ErrorKind::kUsage, "fault '{}': expected one of {}", kind, fmt::join(known, ", "));
    io::remove_tree(fs_, flags.run);
    fs_.make_dirs(disturbed() + "/chaos");
  }

  Verdict run() {
    Verdict v;
    say("the undisturbed run: one worker");
    undisturbed_run();
    say(fmt::format("the disturbed run: {} workers, {} faults", flags_.workers, flags_.faults));
    disturbed_run(v);
    v.undisturbed = weights_of(undisturbed());
    v.disturbed = weights_of(disturbed());
    v.identical = v.undisturbed == v.disturbed;
    const auto check =
        train::check_ledger(disturbed() + "/ledger.jsonl", static_cast<uint64_t>(recipe_.steps),
                            static_cast<uint64_t>(recipe_.global_batch));
    v.lost = check.lost;
    v.repeated = check.repeated;
    v.batches = check.batches;
    for (const auto& [name, source] : check.sources)  // of a mixture: each in its own numbering
      v.lost += source.lost, v.repeated += source.repeated;
    return v;
  }

 private:
  std::string undisturbed() const { return flags_.run + "/undisturbed"; }
  std::string disturbed() const { return flags_.run + "/disturbed"; }
  void say(const std::string& line) const {
    if (!flags_.quiet) fmt::print(stderr, "stoker: {}\n", line);
  }

  std::vector<std::string> train_command(const std::string& run_dir) const {
    std::vector<std::string> out{"train", flags_.recipe, "--quiet"};
    for (const std::string& s : flags_.set) out.insert(out.end(), {"--set", s});
    out.insert(out.end(), {"--set", "run.dir=" + json(run_dir).dump()});
    return out;
  }

  void undisturbed_run() {
    fs_.make_dirs(undisturbed());
    cluster::Processes processes;
    auto command = train_command(undisturbed());
    command.insert(command.begin(), cluster::own_executable());
    processes.start({"undisturbed", command, {}, undisturbed() + "/output.log", ""});
    for (;;) {
      for (const auto& e : processes.reap()) {
        if (e.exit_code == 0 && e.signal == 0) return;
        fail(ErrorKind::kUsage, "the undisturbed run failed (exit {}): see {}/output.log", e.exit_code,
             undisturbed());
      }
      if (stop_requested()) fail(ErrorKind::kCancelled, "stopped");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  std::string weights_of(const std::string& run_dir) {
    return checkpoint::Store(fs_, run_dir + "/checkpoints").open_latest(true).weights_hash().hex();
  }

  void disturbed_run(Verdict& v) {
    cluster::LaunchPlan plan;
    plan.workers = flags_.workers;
    plan.run_dir = disturbed();
    plan.token = token_of_run(disturbed(), true);
    plan.zombie_grace_s = 3;
    plan.max_restarts = 1'000'000;
    const std::string program = cluster::own_executable();
    plan.worker_command = train_command(disturbed());
    plan.worker_command.insert(plan.worker_command.begin(), program);
    plan.worker_command.insert(plan.worker_command.end(),
                               {"--timeout", "1.5", "--zero", std::to_string(flags_.zero_stage)});
    plan.coordinator_command = {program,
                                "coordinator",
                                "--run",
                                disturbed(),
                                "--workers",
                                std::to_string(flags_.workers),
                                "--heartbeat-timeout",
                                "2"};
    setenv("STOKER_CHAOS", "1", 1);
    cluster::Launcher launcher(plan, RunView::hooks(view_, [this](const std::string& line) { say(line); }));
    launcher.start_coordinator();
    view_ = std::make_unique<RunView>(net::parse_address(launcher.address()), net::Tls::kAuto, plan.token);
    launcher.start_workers();
    launcher_ = &launcher;
    for (int i = 0; i < flags_.faults && wait_for_calm(); ++i) v.faults.push_back(one_fault(i));
    while (launcher.step()) pause();
    launcher.processes().end_all(5);
    launcher_ = nullptr;
    if (launcher.exit_code() != 0)
      fail(ErrorKind::kInternal, "the disturbed run ended with exit code {}: see {}/logs",
           launcher.exit_code(), disturbed());
  }

  static void pause() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

  // The launcher works while we wait. False when the run is over.
  template <typename Done>
  bool wait(double seconds, const Done& done) {
    const double end = monotonic_s() + seconds;
    while (!done()) {
      if (!launcher_->step() || monotonic_s() >= end) return false;
      pause();
    }
    return true;
  }

  uint64_t batches() const {
    std::ifstream in(disturbed() + "/ledger.jsonl");
    return static_cast<uint64_t>(std::count(std::istreambuf_iterator<char>(in), {}, '\n'));
  }

  std::vector<json> members() {
    std::vector<json> out;
    for (const json& w : view_->status()["workers"])
      if (w["life"] == "member" && launcher_->processes().running(w["worker"])) out.push_back(w);
    return out;
  }

  // All workers are in and a batch has been finished since: the next fault hits a whole run.
  bool wait_for_calm() {
    uint64_t before = 0;
    double since = 0;
    return wait(kRecoverWithin_s, [&] {
      if (static_cast<int>(members().size()) < flags_.workers || view_->status().value("broken", true)) {
        since = 0;
        return false;
      }
      if (since == 0) since = monotonic_s(), before = batches();
      return monotonic_s() - since > kCalmBetween_s && batches() > before;
    });
  }

  FaultRecord one_fault(int number) {
    FaultRecord f;
    const auto draw = [&](uint64_t what) {
      return random_u64({flags_.seed, what}, static_cast<uint64_t>(number));
    };
    f.kind = flags_.kinds[draw(1) % flags_.kinds.size()];
    const auto present = members();
    f.victim = f.kind == "coordinator" ? "coordinator"
                                       : present[draw(2) % present.size()]["worker"].get<std::string>();
    const int64_t first_event = last_event();
    uint64_t mark = batches();
    const double began = monotonic_s();
    inflict(f);
    bool recovered = false;
    const auto look = [&] {
      if (f.named_s < 0 && named(f, first_event)) {
        f.named_s = monotonic_s() - began;
        mark = std::max(mark, batches());
      }
      // A coordinator's death does not stop the run: the next batch is recovery. Otherwise it is the next one that was
      // finished after somebody was named or a generation formed.
      if (!recovered && batches() > mark &&
          (f.kind == "coordinator" || f.named_s >= 0 || generation_moved(first_event))) {
        recovered = true;
        f.recovery_s = monotonic_s() - began;
      }
      return recovered && f.named_s >= 0;
    };
    wait(kRecoverWithin_s, look);
    if (f.kind == "stop") wake_zombie(f);
    say(fmt::format("fault {:>3}: {:<14} {:<12} named after {:.2f} s, next batch after {:.2f} s", number + 1,
                    f.kind, f.victim, f.named_s, f.recovery_s));
    return f;
  }

  void inflict(const FaultRecord& f) {
    if (f.kind == "kill" || f.kind == "coordinator") return launcher_->processes().signal(f.victim, SIGKILL);
    if (f.kind == "stop") return launcher_->processes().signal(f.victim, SIGSTOP);
    io::write_file_atomic(fs_, fmt::format("{}/chaos/{}", disturbed(), f.victim), f.kind + "\n");
  }

  // The stopped worker wakes after the others have gone on without it. It must find that it is out.
  void wake_zombie(const FaultRecord& f) { launcher_->processes().signal(f.victim, SIGCONT); }

  int64_t last_event() {
    int64_t last = 0;
    for (const json& e : events(0)) last = std::max(last, e["number"].get<int64_t>());
    return last;
  }
  std::vector<json> events(int64_t after) {
    try {
      const json status = json::parse(view_->client().status(after));
      return status["events"].get<std::vector<json>>();
    } catch (const Error&) {
      return {};
    }
  }
  bool named(const FaultRecord& f, int64_t first_event) {
    if (f.kind == "coordinator") return launcher_->processes().running("coordinator") && view_->answers();
    for (const json& e : events(first_event)) {
      static const std::vector<std::string> kNaming{"ended", "silent", "stuck", "link", "accused", "corrupt"};
      if (e["worker"] == f.victim && std::find(kNaming.begin(), kNaming.end(), e["kind"]) != kNaming.end())
        return true;
    }
    return false;
  }
  bool generation_moved(int64_t first_event) {
    for (const json& e : events(first_event))
      if (e["kind"] == "formed") return true;
    return false;
  }

  const Flags& flags_;
  io::FileSystem& fs_ = io::real_file_system();
  train::Recipe recipe_;
  std::unique_ptr<RunView> view_;
  cluster::Launcher* launcher_ = nullptr;
};

void print(const Verdict& v, const Flags& flags, bool passed) {
  if (flags.as_json) {
    json faults = json::array();
    for (const FaultRecord& f : v.faults)
      faults.push_back(
          {{"kind", f.kind}, {"victim", f.victim}, {"named_s", f.named_s}, {"recovery_s", f.recovery_s}});
    fmt::print("{}\n", json{{"faults", v.faults.size()},
                            {"identical", v.identical},
                            {"samples_lost", v.lost},
                            {"samples_repeated", v.repeated},
                            {"recovery_s_median", v.recovery_median("")},
                            {"recovery_kill_s_median", v.recovery_median("kill")},
                            {"unnamed_culprits", v.unnamed()},
                            {"passed", passed},
                            {"weights_undisturbed", v.undisturbed},
                            {"weights_disturbed", v.disturbed},
                            {"each", faults}}
                           .dump(2));
    return;
  }
  std::map<std::string, int> kinds;
  for (const FaultRecord& f : v.faults) ++kinds[f.kind];
  fmt::print("{} faults:", v.faults.size());
  for (const auto& [kind, count] : kinds) fmt::print(" {} {}", count, kind);
  fmt::print(
      "\nweights   {} {} {}\nsamples   {} lost, {} repeated, {} batches\nrecovery  median {:.2f} s, after "
      "kill -9 {:.2f} s\n"
      "culprits  {} not named within {:.0f} s\n{}\n",
      v.disturbed, v.identical ? "identical to" : "DIFFER FROM", v.undisturbed, v.lost, v.repeated, v.batches,
      v.recovery_median(""), v.recovery_median("kill"), v.unnamed(), kNameWithin_s,
      passed ? "passed" : "FAILED");
}

}  // namespace

void add_chaos(CLI::App& app) {
  auto* cmd = app.add_subcommand(
      "chaos", "Prove that a run survives: kill, stop and corrupt its workers, compare the weights");
  auto flags = std::make_shared<Flags>();
  cmd->add_option("recipe", flags->recipe, "The run as TOML; long enough for the faults")->required();
  cmd->add_option("--kills,--faults", flags->faults, "Faults (default 20)")->check(CLI::Range(1, 100000));
  cmd->add_option("-n,--workers", flags->workers, "Workers (default 4)")->check(CLI::Range(2, 64));
  cmd->add_option("--kinds", flags->kinds,
                  "Of: kill stop coordinator flip-weights flip-gradients half-open drop (default all)");
  cmd->add_option("--zero", flags->zero_stage, "1: with sharded optimizer state")->check(CLI::Range(0, 1));
  cmd->add_option("--seed", flags->seed, "Of the choice of faults");
  cmd->add_option("--run", flags->run, "Directory for both runs; emptied first (default chaos)");
  cmd->add_option("--set", flags->set, "Override a key of the recipe")->take_all()->allow_extra_args(false);
  cmd->add_flag("--json", flags->as_json, "Print JSON (docs/json.md)");
  cmd->add_flag("--quiet", flags->quiet, "Only the verdict");
  cmd->footer("Example: stoker chaos recipe.toml --kills 200 --set train.steps=2000");
  cmd->callback([flags] {
    const Verdict v = Experiment(*flags).run();
    const bool passed = v.identical && v.lost == 0 && v.repeated == 0 && v.unnamed() == 0 &&
                        static_cast<int>(v.faults.size()) == flags->faults;
    print(v, *flags, passed);
    if (!passed) throw CLI::RuntimeError(exit_code(ErrorKind::kInternal));
  });
}

}  // namespace stoker::cli
