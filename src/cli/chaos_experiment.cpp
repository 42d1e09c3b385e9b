#include "cli/chaos_experiment.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/clock.h"
#include "base/median.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/stop.h"
#include "checkpoint/store.h"
#include "cli/command.h"
#include "cli/run_files.h"
#include "cli/run_view.h"
#include "cluster/namespaces.h"
#include "io/atomic_write.h"
#include "io/file_system.h"
#include "train/ledger.h"
#include "train/recipe.h"

namespace stoker::cli {
namespace {

using Json = nlohmann::json;
constexpr double kNameWithin_s = 10;
constexpr double kRecoverWithin_s = 120;
constexpr double kCalmBetween_s = 0.1;
constexpr double kQuick_s = 0.25;  // a coordinator that is away must not keep us from looking
constexpr double kCheckpointEvery_s =
    1;  // by the speed of one worker; many on one machine, disturbed, are much slower
constexpr int64_t kMostSteps = 50;
constexpr int64_t kWarmUpSteps = 6;
constexpr int64_t kEndless = 1'000'000'000;
constexpr int kStopped = 75;
// A pause of 10 ms that lasts so long: this process was stopped, and the workers with it. What they then say of one another is
// no verdict on them.
constexpr double kStandstill_s = 0.5;

// What happens to all workers at once cannot be survived from memory.
bool is_total(const std::string& kind) { return kind == "flip-checkpoint"; }

class Experiment {
 public:
  explicit Experiment(const ChaosOptions& options)
      : options_(options), recipe_(train::load_recipe(options.recipe, with_length(4))) {
    if (recipe_.virtual_ranks < options.workers)
      fail(ErrorKind::kUsage,
           "train.virtual_ranks is {} and there are {} workers: expected at least as many virtual ranks "
           "(--set "
           "train.virtual_ranks={})",
           recipe_.virtual_ranks, options.workers, options.workers);
    for (const std::string& kind : options.kinds)
      if (std::find(chaos_kinds().begin(), chaos_kinds().end(), kind) == chaos_kinds().end())
        fail(ErrorKind::kUsage, "fault '{}': expected one of {}", kind, fmt::join(chaos_kinds(), ", "));
    kinds_ = options.kinds.empty() ? chaos_kinds() : options.kinds;
    io::remove_tree(fs_, options.run);
    fs_.make_dirs(disturbed() + "/chaos");
  }

  ChaosVerdict run() {
    ChaosVerdict v;
    check_kinds(v);
    const double step_s = warm_up();
    checkpoint_every_ = std::clamp<int64_t>(static_cast<int64_t>(kCheckpointEvery_s / step_s), 2, kMostSteps);
    options_.say(fmt::format("disturbing {} workers with {} faults: {}", options_.workers, options_.faults,
                             fmt::join(kinds_, " ")));
    const double begin = monotonic_s();
    disturbed_run(v);
    v.disturbed_s = monotonic_s() - begin;
    checkpoint::Store store(fs_, disturbed() + "/checkpoints");
    const checkpoint::Checkpoint last = store.open_latest(true);
    v.steps = last.step();
    v.disturbed = last.weights_hash().hex();
    options_.say(fmt::format("undisturbed with {} worker{} to the same step {}", fewest(),
                             fewest() == 1 ? "" : "s", v.steps));
    const double from = monotonic_s();
    train_alone(undisturbed(), kEndless, v.steps);
    v.undisturbed_s = monotonic_s() - from;
    v.undisturbed =
        checkpoint::Store(fs_, undisturbed() + "/checkpoints").open_latest(true).weights_hash().hex();
    v.identical = v.undisturbed == v.disturbed;
    const auto check = train::check_ledger(disturbed() + "/ledger.jsonl", last.state().next_batch,
                                           static_cast<uint64_t>(recipe_.global_batch));
    v.lost = check.lost;
    v.repeated = check.repeated;
    for (const auto& [name, source] : check.sources)  // of a mixture: each in its own numbering
      v.lost += source.lost, v.repeated += source.repeated;
    v.batches = check.batches;
    return v;
  }

 private:
  std::string undisturbed() const { return options_.run + "/undisturbed"; }
  std::string disturbed() const { return options_.run + "/disturbed"; }

  std::vector<std::string> with_length(int64_t steps) const {
    std::vector<std::string> set = options_.set;
    // Workers of one machine share its processors.
    if (std::none_of(set.begin(), set.end(),
                     [](const std::string& s) { return s.starts_with("train.threads="); }))
      set.insert(set.begin(), "train.threads=1");
    set.push_back(fmt::format("train.steps={}", steps));
    return set;
  }

  std::vector<std::string> train_command(const std::string& run_dir, int64_t steps) const {
    std::vector<std::string> out{"train", options_.recipe, "--quiet"};
    for (const std::string& s : with_length(steps)) out.insert(out.end(), {"--set", s});
    out.insert(out.end(), {"--set", "run.dir=" + Json(run_dir).dump(), "--set", "eval.every=0"});
    return out;
  }

  // The workers of the undisturbed run: one, but where the layout splits inner sums and so is a class of bits of its own.
  int64_t fewest() const { return recipe_.layout.tensor * recipe_.layout.context; }

  void train_alone(const std::string& run_dir, int64_t steps, int64_t until) {
    fs_.make_dirs(run_dir);
    cluster::Processes processes;
    auto command = train_command(run_dir, steps);
    command.insert(command.end(),
                   {"--until", std::to_string(until), "--set", fmt::format("checkpoint.every={}", kEndless),
                    "--set", "layout.pipeline=1"});
    if (fewest() > 1) {
      const std::vector<std::string> launch{"launch", "-n", std::to_string(fewest()), "--run", run_dir, "--"};
      command.insert(command.begin(), launch.begin(), launch.end());
    }
    command.insert(command.begin(), cluster::own_executable());
    processes.start({"alone", command, {}, run_dir + "/output.log", ""});
    for (;;) {
      for (const auto& e : processes.reap()) {
        if (e.signal == 0 && (e.exit_code == 0 || e.exit_code == kStopped)) return;
        fail(ErrorKind::kUsage, "the undisturbed run failed (exit {}): see {}/output.log", e.exit_code,
             run_dir);
      }
      if (stop_requested()) fail(ErrorKind::kCancelled, "stopped");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  // A few steps alone: does the recipe train at all, and how long does a step take?
  double warm_up() {
    const std::string dir = options_.run + "/warm-up";
    train_alone(dir, kEndless, kWarmUpSteps);
    std::vector<double> times;
    const auto log = fs_.open_read(dir + "/log.jsonl");
    for (std::string_view rest = log->text(); !rest.empty();) {
      const size_t end = std::min(rest.find('\n'), rest.size() - 1);
      const Json line = Json::parse(rest.substr(0, end), nullptr, false);
      if (!line.is_discarded() && line.value("event", "") == "step") times.push_back(line.at("time_s"));
      rest.remove_prefix(end + 1);
    }
    std::sort(times.begin(), times.end());
    return times.empty() ? 1 : std::max(1e-4, times[times.size() / 2]);
  }

  // Leaves a kind of fault out, or fails where it was asked for by name.
  void leave_out(ChaosVerdict& v, const std::string& kind, const std::string& why) {
    if (!options_.kinds.empty()) fail(ErrorKind::kUsage, "fault '{}' is not possible here: {}", kind, why);
    v.left_out.push_back(kind + ": " + why);
    options_.say(kind + " is left out: " + why);
    std::erase(kinds_, kind);
  }
  bool inflicts(const std::string& kind) const {
    return std::find(kinds_.begin(), kinds_.end(), kind) != kinds_.end();
  }

  void check_kinds(ChaosVerdict& v) {
    if (inflicts("partition")) {
      if (const std::string why = cluster::Namespaces::why_not(); !why.empty())
        leave_out(v, "partition", why);
      else namespaces_ = std::make_unique<cluster::Namespaces>(options_.workers);
    }
    // A sum that all replicas hold is judged by majority; whoever holds a shard of it knows what came out of the sum.
    const int64_t each = recipe_.layout.pipeline * recipe_.layout.tensor * recipe_.layout.context,
                  replicas = options_.workers / each;
    if (inflicts("flip-gradients") && options_.zero_stage == 0 && replicas < 3)
      leave_out(v, "flip-gradients",
                fmt::format(
                    "two replicas that differ cannot tell which of them lies; {} workers at layout.pipeline "
                    "({}) x tensor ({}) x context ({}) are {}. Use -n {}, or --zero 1",
                    options_.workers, recipe_.layout.pipeline, recipe_.layout.tensor, recipe_.layout.context,
                    replicas, 3 * each));
  }

  cluster::LaunchPlan plan() {
    cluster::LaunchPlan p;
    p.workers = options_.workers;
    p.run_dir = disturbed();
    p.token = token_of_run(disturbed(), true);
    p.zombie_grace_s = 3;
    p.max_restarts = 1'000'000;
    const std::string program = cluster::own_executable();
    p.worker_command = train_command(disturbed(), kEndless);
    p.worker_command.insert(p.worker_command.begin(), program);
    p.worker_command.insert(p.worker_command.end(),
                            {"--timeout", "1.5", "--zero", std::to_string(options_.zero_stage), "--set",
                             fmt::format("checkpoint.every={}", checkpoint_every_)});
    if (inflicts("flip-shard")) p.worker_command.insert(p.worker_command.end(), {"--audit", "1"});
    p.coordinator_command = {program,
                             "coordinator",
                             "--run",
                             disturbed(),
                             "--workers",
                             std::to_string(options_.workers),
                             "--heartbeat-timeout",
                             "2"};
    if (namespaces_) {
      p.worker_command.insert(p.worker_command.end(), {"--transport", "tcp"});
      p.coordinator_command.insert(p.coordinator_command.end(), {"--listen", namespaces_->address()});
      p.prefix = [this](size_t slot) { return namespaces_->enter(static_cast<int>(slot)); };
    }
    return p;
  }

  void disturbed_run(ChaosVerdict& v) {
    const cluster::LaunchPlan p = plan();
    setenv("STOKER_CHAOS", "1", 1);
    cluster::Launcher launcher(p, RunView::hooks(view_, options_.say));
    launcher.start_coordinator();
    view_ = std::make_unique<RunView>(net::parse_address(launcher.address()), net::Tls::kAuto, p.token);
    launcher.start_workers();
    launcher_ = &launcher;
    for (int i = 0; i < options_.faults && wait_for_calm();) {
      const double stood_before_s = stood_still_s_;
      FaultRecord fault = one_fault(i);
      if (stood_still_s_ > stood_before_s) {
        ++v.inflicted_again;
        options_.say(
            fmt::format("the whole machine stood still for {:.1f} s meanwhile: that one does not count",
                        stood_still_s_ - stood_before_s));
        continue;
      }
      v.faults.push_back(std::move(fault));
      ++i;
    }
    const bool calm = wait_for_calm();
    if (calm) view_->stop("all faults have been inflicted");
    while (launcher.step()) pause();
    launcher.processes().end_all(5);
    launcher_ = nullptr;
    unsetenv("STOKER_CHAOS");
    if (!calm || launcher.exit_code() != kStopped)
      fail(
          ErrorKind::kInternal,
          "the disturbed run ended by itself with exit code {} after {} faults: see {}/logs and events.jsonl",
          launcher.exit_code(), v.faults.size(), disturbed());
  }

  void pause() {
    const double before = monotonic_s();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (const double slept = monotonic_s() - before; slept > kStandstill_s) stood_still_s_ += slept;
  }

  // The launcher works while we wait. False when the time or the run is over.
  template <typename Done>
  bool wait(double seconds, const Done& done) {
    const double end = monotonic_s() + seconds;
    while (!done()) {
      if (!launcher_->step() || monotonic_s() >= end) return false;
      pause();
    }
    return true;
  }

  uint64_t batches() const { return train::batches_in_ledger(disturbed() + "/ledger.jsonl"); }

  std::vector<Json> members() {
    std::vector<Json> out;
    for (const Json& w : view_->status()["workers"])
      if (w["life"] == "member" && launcher_->processes().running(w["worker"])) out.push_back(w);
    return out;
  }

  // All workers are in and a batch has been finished since: the next fault hits a whole run.
  bool wait_for_calm() {
    uint64_t before = 0;
    double since = 0;
    return wait(kRecoverWithin_s, [&] {
      if (static_cast<int>(members().size()) < options_.workers || view_->status().value("broken", true)) {
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
      return random_u64({options_.seed, what}, static_cast<uint64_t>(number));
    };
    // Every kind comes once before any comes again.
    std::vector<std::string> deck = kinds_;
    const auto round = static_cast<uint64_t>(number) / deck.size();
    for (size_t i = deck.size(); i > 1; --i)
      std::swap(deck[i - 1], deck[random_u64({options_.seed, 7 + i}, round) % i]);
    f.kind = deck[static_cast<size_t>(number) % deck.size()];
    if (is_total(f.kind)) wait(kRecoverWithin_s, [&] { return committed().size() >= 2; });
    const auto present = members();
    f.victim = f.kind == "coordinator" ? f.kind
               : is_total(f.kind)      ? "all workers"
                                       : present[draw(2) % present.size()]["worker"].get<std::string>();
    if (f.kind == "disk-full")  // only who stores can find the disk full
      for (const Json& w : present)
        if (w["rank"] == 0) f.victim = w["worker"];
    const int64_t first_event = last_event();
    const uint64_t at_fault = batches();
    uint64_t mark = at_fault, lowest = at_fault;
    const double began = monotonic_s();
    inflict(f);
    bool recovered = false;
    wait(kRecoverWithin_s, [&] {
      const auto events = events_after(first_event);
      if (f.named_s < 0 && named(f, events)) {
        f.named_s = monotonic_s() - began;
        mark = std::max(mark, batches());
      }
      const uint64_t now = batches();
      if (now < lowest) mark = now;  // back at a checkpoint
      lowest = std::min(lowest, now);
      // A coordinator's death does not stop the run: the next batch is recovery. Otherwise it is the next one that was
      // finished after somebody was named or a generation formed.
      if (!recovered && now > mark &&
          (f.kind == "coordinator" || f.named_s >= 0 || (!is_total(f.kind) && has(events, "formed")))) {
        recovered = true;
        f.recovery_s = monotonic_s() - began;
      }
      f.read_checkpoint |= has(events, "resume");
      return recovered && f.named_s >= 0;
    });
    f.batches_again = at_fault - lowest;
    undo(f);
    options_.say(fmt::format("fault {:>3}: {:<15} {:<12} named after {:.2f} s, next batch after {:.2f} s",
                             number + 1, f.kind, f.victim, f.named_s, f.recovery_s));
    return f;
  }

  int slot_of(const std::string& worker) const { return std::stoi(worker.substr(1)); }

  void tell(const std::string& worker, const std::string& what) {
    io::write_file_atomic(fs_, fmt::format("{}/chaos/{}", disturbed(), worker), what + "\n");
  }

  void inflict(const FaultRecord& f) {
    auto& processes = launcher_->processes();
    if (f.kind == "kill" || f.kind == "coordinator") return processes.signal(f.victim, SIGKILL);
    if (f.kind == "stop") return processes.signal(f.victim, SIGSTOP);
    if (f.kind == "partition") return namespaces_->cut(slot_of(f.victim));
    if (f.kind == "disk-full")  // by turns: they have their own ways out
      return tell(f.victim, f.kind + (disks_filled_++ % 2 ? " checkpoints" : " ledger"));
    if (!is_total(f.kind)) return tell(f.victim, f.kind);
    // The machine room loses power, and a bit of what it wrote last: nobody may commit anything in between.
    for (const std::string& w : launcher_->workers()) processes.signal(w, SIGSTOP);
    flip_newest_checkpoint();
    for (const std::string& w : launcher_->workers()) processes.signal(w, SIGKILL);
  }

  // What was stopped or cut off comes back after the others have gone on without it. It must find that it is out.
  void undo(const FaultRecord& f) {
    if (f.kind == "stop") launcher_->processes().signal(f.victim, SIGCONT);
    if (f.kind == "partition") namespaces_->heal(slot_of(f.victim));
    if (f.kind == "slow") {
      tell(f.victim, "calm");
      wait(2, [&] { return !fs_.exists(fmt::format("{}/chaos/{}", disturbed(), f.victim)); });
    }
  }

  std::vector<checkpoint::Listed> committed() {
    return checkpoint::Store(fs_, disturbed() + "/checkpoints").list();
  }

  void flip_newest_checkpoint() {
    namespace files = std::filesystem;
    files::path largest;
    for (const auto& entry : files::directory_iterator(committed().back().directory))
      if (entry.is_regular_file() && (largest.empty() || entry.file_size() > files::file_size(largest)))
        largest = entry.path();
    std::FILE* file = std::fopen(largest.c_str(), "r+b");
    const long at = static_cast<long>(files::file_size(largest) / 2);
    if (file == nullptr || std::fseek(file, at, SEEK_SET) != 0)
      fail(ErrorKind::kStorage, "cannot open {} to damage it", largest.string());
    const int byte = std::fgetc(file);
    std::fseek(file, at, SEEK_SET);
    std::fputc(byte ^ 0x04, file);
    std::fclose(file);
  }

  int64_t last_event() {
    int64_t last = 0;
    for (const Json& e : events_after(0)) last = std::max(last, e["number"].get<int64_t>());
    return last;
  }
  std::vector<Json> events_after(int64_t number) {
    try {
      if (!view_->client().answers(kQuick_s)) return {};
      const Json status = Json::parse(view_->client().status(number));
      return status["events"].get<std::vector<Json>>();
    } catch (const Error&) {
      return {};
    }
  }
  static bool has(const std::vector<Json>& events, const char* kind) {
    return std::any_of(events.begin(), events.end(), [&](const Json& e) { return e["kind"] == kind; });
  }
  bool named(FaultRecord& f, const std::vector<Json>& events) {
    if (f.kind == "coordinator") {
      f.said = "the launcher started it again";
      return launcher_->processes().running("coordinator") && view_->client().answers(kQuick_s);
    }
    static const std::vector<std::string> kNaming{"ended",  "silent",  "stuck",   "link",
                                                  "blamed", "corrupt", "storage", "slow"};
    for (const Json& e : events) {
      const bool names = is_total(f.kind)
                             ? e["kind"] == "damaged"
                             : e["worker"] == f.victim &&
                                   std::find(kNaming.begin(), kNaming.end(), e["kind"]) != kNaming.end();
      // A limping worker is the culprit when it is called slow, not when it is late by chance.
      if (!names || (f.kind == "slow" && e["kind"] != "slow") ||
          (f.kind == "disk-full" && e["kind"] != "storage"))
        continue;
      f.said = e["text"];
      return true;
    }
    return false;
  }

  const ChaosOptions& options_;
  io::FileSystem& fs_ = io::real_file_system();
  train::Recipe recipe_;
  std::vector<std::string> kinds_;
  int64_t checkpoint_every_ = 100;
  int disks_filled_ = 0;
  std::unique_ptr<cluster::Namespaces> namespaces_;  // outlives the processes in them
  std::unique_ptr<RunView> view_;
  cluster::Launcher* launcher_ = nullptr;
  double stood_still_s_ = 0;
};

}  // namespace

const std::vector<std::string>& chaos_kinds() {
  static const std::vector<std::string> kinds{
      "kill",       "stop",         "half-open",      "drop",       "delay",           "partition",
      "disk-full",  "flip-weights", "flip-gradients", "flip-shard", "flip-checkpoint", "slow",
      "coordinator"};
  return kinds;
}

int64_t ChaosVerdict::unnamed() const {
  return std::count_if(faults.begin(), faults.end(),
                       [](const FaultRecord& f) { return f.named_s < 0 || f.named_s > kNameWithin_s; });
}
double ChaosVerdict::recovery_median(const std::string& kind) const {
  std::vector<double> times;
  for (const FaultRecord& f : faults)
    if (f.recovery_s >= 0 && (kind.empty() || f.kind == kind)) times.push_back(f.recovery_s);
  return times.empty() ? -1 : median(times);
}
int64_t ChaosVerdict::checkpoints_read() const {
  return std::count_if(faults.begin(), faults.end(),
                       [](const FaultRecord& f) { return f.read_checkpoint && !is_total(f.kind); });
}
uint64_t ChaosVerdict::most_batches_again() const {
  uint64_t most = 0;
  for (const FaultRecord& f : faults)
    if (!is_total(f.kind)) most = std::max(most, f.batches_again);
  return most;
}
bool ChaosVerdict::passed(int wanted) const {
  return identical && lost == 0 && repeated == 0 && unnamed() == 0 && checkpoints_read() == 0 &&
         most_batches_again() == 0 && static_cast<int>(faults.size()) == wanted &&
         std::all_of(faults.begin(), faults.end(), [](const FaultRecord& f) { return f.recovery_s >= 0; });
}

ChaosVerdict run_chaos(const ChaosOptions& options) { return Experiment(options).run(); }

}  // namespace stoker::cli
