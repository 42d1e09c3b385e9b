#include "cluster/launcher.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/stop.h"

namespace stoker::cluster {
namespace {

const std::string kCoordinator = "coordinator";
constexpr double kCoordinatorStart_s = 15;
constexpr double kFenceCheck_s = 0.5;
constexpr double kLastWord_s = 1.5;
constexpr double kQuickEnd_s = 2, kLongestPause_s = 10;
constexpr int kQuickEndsTold = 3;
constexpr double kGrow_s = 1;     // newcomers have this long to take a place that is wanted
constexpr double kFinish_s = 15;  // the last workers may need this long after the first is done

bool is_final(int exit) {
  return exit == exit_code(ErrorKind::kUsage) || exit == exit_code(ErrorKind::kInternal) ||
         exit == exit_code(ErrorKind::kNumeric) || exit == exit_code(ErrorKind::kCancelled) ||
         exit == exit_code(ErrorKind::kData);
}

}  // namespace

std::vector<HostSlots> parse_hosts(const std::string& text) {
  std::vector<HostSlots> out;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    const size_t colon = item.find(':');
    HostSlots host{item.substr(0, colon), 1};
    const auto odd = [](char c) {
      return !(std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' || c == '@');
    };
    bool good = !host.host.empty() && host.host.front() != '-' &&
                std::none_of(host.host.begin(), host.host.end(), odd);
    if (colon != std::string::npos) {
      const char* stop = item.data() + item.size();
      const auto [p, error] = std::from_chars(item.data() + colon + 1, stop, host.slots);
      good &= error == std::errc{} && p == stop && host.slots >= 1 && host.slots <= 4096;
    }
    if (!good)
      fail(ErrorKind::kUsage,
           "--hosts: expected name[:workers] separated by commas, such as a,b:4; found '{}'", item);
    out.push_back(host);
    begin = end + 1;
  }
  return out;
}

std::string shell_quote(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::vector<std::string> ssh_command(const std::string& host, const std::vector<std::string>& command,
                                     const std::map<std::string, std::string>& environment,
                                     const std::vector<std::string>& ssh) {
  std::string remote = "IFS= read -r STOKER_TOKEN; export STOKER_TOKEN; exec env";
  for (const auto& [key, value] : environment) remote += " " + key + "=" + shell_quote(value);
  for (const std::string& word : command) remote += " " + shell_quote(word);
  std::vector<std::string> out = ssh;
  for (const char* option : {"-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"})
    out.emplace_back(option);
  out.insert(out.end(), {"--", host, remote});
  return out;
}

Launcher::Launcher(LaunchPlan plan, LaunchHooks hooks) : plan_(std::move(plan)), hooks_(std::move(hooks)) {
  if (plan_.workers < 1 || plan_.workers > 4096)
    fail(ErrorKind::kUsage, "-n {}: expected 1 to 4096 workers", plan_.workers);
  std::error_code ec;
  for (const char* part : {"logs", "flight"}) {
    std::filesystem::create_directories(std::filesystem::path(plan_.run_dir) / part, ec);
    if (ec) fail(ErrorKind::kStorage, "cannot create {}/{}: {}", plan_.run_dir, part, ec.message());
  }
  if (plan_.hosts.empty()) plan_.hosts.push_back({"", plan_.workers});
  for (int i = 0; i < plan_.workers; ++i) slots_.emplace_back();
  size_t next = 0;
  for (const HostSlots& host : plan_.hosts)  // fill the hosts in order; what is left goes round
    for (int s = 0; s < host.slots && next < slots_.size(); ++s) slots_[next++].host = host.host;
  for (size_t i = 0; next < slots_.size(); ++i)
    slots_[next++].host = plan_.hosts[i % plan_.hosts.size()].host;
}

Launcher::~Launcher() = default;

void Launcher::start_coordinator() {
  const std::string file = plan_.run_dir + "/coordinator";
  if (address_.empty()) std::filesystem::remove(file);
  auto command = plan_.coordinator_command;
  if (!address_.empty()) command.insert(command.end(), {"--port", address_.substr(address_.rfind(':') + 1)});
  processes_.start({kCoordinator, command, {}, plan_.run_dir + "/logs/coordinator.log", ""});
  const double end = monotonic_s() + kCoordinatorStart_s;
  while (address_.empty()) {
    std::ifstream in(file);
    std::string line;
    if (std::getline(in, line) && !in.eof()) address_ = line;
    for (const ProcessExit& e : processes_.reap())
      if (e.name == kCoordinator)
        fail(ErrorKind::kPeer, "the coordinator ended at once (exit {}): see {}/logs/coordinator.log",
             e.exit_code, plan_.run_dir);
    if (address_.empty() && monotonic_s() >= end)
      fail(ErrorKind::kPeer, "the coordinator did not start within {:.0f} s: see {}/logs/coordinator.log",
           kCoordinatorStart_s, plan_.run_dir);
    if (address_.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void Launcher::start_workers() {
  for (Slot& slot : slots_) start_worker(slot);
}

void Launcher::start_worker(Slot& slot) {
  const auto index = static_cast<size_t>(&slot - slots_.data());
  slot.worker = fmt::format("w{}.{}", index, slot.incarnation++);
  slot.started_s = monotonic_s();
  std::map<std::string, std::string> environment{
      {"STOKER_COORDINATOR", address_}, {"STOKER_WORKER", slot.worker}, {"STOKER_RUN_DIR", plan_.run_dir}};
  const auto here = [&](const Slot& s) { return s.host == slot.host; };
  const auto sharing = std::count_if(slots_.begin(), slots_.end(), here);
  environment["STOKER_LOCAL_WORKERS"] = std::to_string(sharing);
  environment["STOKER_LOCAL_RANK"] =
      std::to_string(std::count_if(slots_.begin(), slots_.begin() + static_cast<ptrdiff_t>(index), here));
  // Compute threads that spin at a barrier keep the processor from those that all of them wait for: 4 workers with 2
  // threads on 2 processors made 60 steps in 14.5 s, and in 2.5 s with this.
  if (sharing > 1 && std::getenv("OMP_WAIT_POLICY") == nullptr) environment["OMP_WAIT_POLICY"] = "passive";
  environment.insert(plan_.environment.begin(), plan_.environment.end());
  ProcessSpec spec{slot.worker, plan_.worker_command, environment, log_of(slot.worker), ""};
  if (slot.host.empty()) {
    spec.environment["STOKER_TOKEN"] = plan_.token;
    if (plan_.prefix) {
      spec.command = plan_.prefix(index);
      spec.command.insert(spec.command.end(), plan_.worker_command.begin(), plan_.worker_command.end());
    }
  } else {
    spec.command = ssh_command(slot.host, plan_.worker_command, environment, plan_.ssh);
    spec.environment.clear();
    spec.input = plan_.token + "\n";
  }
  processes_.start(spec);
}

std::vector<std::string> Launcher::workers() const {
  std::vector<std::string> out;
  for (const Slot& slot : slots_)
    if (!slot.done && processes_.running(slot.worker)) out.push_back(slot.worker);
  return out;
}

namespace {
std::string last_line(const std::string& path) {
  std::ifstream in(path);
  std::string line, last = "(nothing)";
  while (std::getline(in, line)) {
    if (line.ends_with('\r')) line.pop_back();  // as ssh ends its lines
    if (line.find_first_not_of(" \r") != line.npos) last = line.substr(line.rfind('\r') + 1);
  }
  return last;
}
}  // namespace

std::string Launcher::log_of(const std::string& worker) const {
  return fmt::format("{}/logs/{}.log", plan_.run_dir, worker);
}

void Launcher::handle(const ProcessExit& exit) {
  if (exit.name == kCoordinator) {
    if (stopping_ || hooks_.run_finished()) return;
    hooks_.say(fmt::format(
        "the coordinator ended ({}); starting it again at {}",
        exit.signal ? fmt::format("signal {}", exit.signal) : fmt::format("exit {}", exit.exit_code),
        address_));
    start_coordinator();
    return;
  }
  zombies_.erase(exit.name);
  hooks_.worker_ended(exit);
  const auto slot =
      std::find_if(slots_.begin(), slots_.end(), [&](const Slot& s) { return s.worker == exit.name; });
  if (slot == slots_.end()) return;  // already replaced
  const bool clean = exit.signal == 0 && exit.exit_code == 0;
  if (!clean && exit.signal == 0 && is_final(exit.exit_code)) {
    // Workers that were told to stop may be seen before the one that made them: its reason is the run's.
    const int stopped = stoker::exit_code(ErrorKind::kCancelled);
    if (exit_code_ == 0 || (exit_code_ == stopped && exit.exit_code != stopped)) {
      exit_code_ = exit.exit_code;
      hooks_.say(fmt::format("{} ended with exit code {}: the run ends. {} ends with: {}", exit.name,
                             exit.exit_code, log_of(exit.name), last_line(log_of(exit.name))));
    }
    slot->done = true;
    if (!stopping_) hooks_.stop(fmt::format("{} ended with exit code {}", exit.name, exit.exit_code));
    stopping_ = true;
    return;
  }
  if (clean || stopping_ || hooks_.run_finished()) {
    slot->done = true;
    return;
  }
  if (restarts_ >= plan_.max_restarts) {
    hooks_.say(fmt::format("{} is lost and {} replacements are used up. Its log ends with: {}", exit.name,
                           plan_.max_restarts, last_line(log_of(exit.name))));
    slot->done = true;
    ++given_up_;
    return;
  }
  ++restarts_;
  slot->worker.clear();
  // What ends at once again and again (no way to its host, a full disk) is told of, and not tried as fast as the machine can.
  const bool quick = exit.signal == 0 && monotonic_s() - slot->started_s < kQuickEnd_s;
  slot->quick_ends = quick ? slot->quick_ends + 1 : 0;
  if (slot->quick_ends == kQuickEndsTold)
    hooks_.say(fmt::format(
        "{} ended with exit code {} as soon as it was started, the third in a row; trying on with "
        "growing pauses. Its log ends with: {}",
        exit.name, exit.exit_code, last_line(log_of(exit.name))));
  const double longer = std::pow(2.0, std::max(0, slot->quick_ends - kQuickEndsTold + 1));
  slot->start_at_s = monotonic_s() + std::min(plan_.restart_pause_s * longer, kLongestPause_s);
}

// A worker that the run has given up may still exist: stopped, cut off, or a zombie of a lost node. Its place is filled
// at once, and after a while it is ended if it is ours to end.
void Launcher::check_fenced(double now) {
  if (now < next_fence_check_s_) return;
  next_fence_check_s_ = now + kFenceCheck_s;
  for (const std::string& worker : hooks_.fenced_workers()) {
    if (!processes_.running(worker) || zombies_.count(worker)) continue;
    zombies_[worker] = now + plan_.zombie_grace_s;
    for (Slot& slot : slots_)
      if (slot.worker == worker && restarts_ < plan_.max_restarts && !stopping_) {
        ++restarts_;
        slot.worker.clear();
        slot.start_at_s = now;
      }
  }
  for (const auto& [worker, when] : zombies_)
    if (now >= when) processes_.signal(worker, SIGKILL);
}

// A place that is wanted and that nobody takes gets a worker of this launcher: in a slot that one has left, or in a new one. True while
// workers of others carry the run.
bool Launcher::fill_places(double now) {
  const auto open =
      static_cast<int>(std::count_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.done; }));
  std::optional<Demand> demand;
  if (hooks_.demand && !stopping_ && !hooks_.run_finished()) demand = hooks_.demand(workers());
  const int missing = demand ? demand->wanted - demand->others - open - given_up_ : 0;
  if (missing <= 0) short_since_s_ = 0;
  else if (short_since_s_ == 0) short_since_s_ = now;
  else if (now - short_since_s_ >= kGrow_s) {
    auto slot = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return s.done; });
    if (slot == slots_.end())
      slot = slots_.insert(slot, {plan_.hosts[slots_.size() % plan_.hosts.size()].host, "", 0, 0, false});
    slot->done = false;
    start_worker(*slot);
    hooks_.say(fmt::format("{} workers are wanted: started {}", demand->wanted, slot->worker));
  }
  return demand && demand->others > 0;
}

bool Launcher::step() {
  for (const ProcessExit& exit : processes_.reap()) handle(exit);
  const double now = monotonic_s();
  if (stop_requested() && !stopping_) {
    stopping_ = true;
    hooks_.say("stopping: the workers save and leave (again Ctrl-C ends at once)");
    hooks_.stop("asked to stop");
    for (const std::string& worker : workers()) processes_.signal(worker, SIGTERM);
  }
  check_fenced(now);
  bool open = false;
  for (Slot& slot : slots_) {
    if (slot.done) continue;
    if (slot.worker.empty() && now >= slot.start_at_s) {
      if (stopping_) {
        slot.done = true;
        continue;
      }
      start_worker(slot);
    }
    open = true;
  }
  const bool carried_by_others = fill_places(now);
  if (!open) return carried_by_others;
  if (!stopping_ && !hooks_.run_finished()) return true;
  if (give_up_at_s_ == 0) give_up_at_s_ = now + std::max(kFinish_s, plan_.grace_s);
  return now < give_up_at_s_;
}

int Launcher::run() {
  start_workers();
  while (step()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  // What we know of the run may be a moment old: the last workers ended just now. The coordinator stays for a while after them.
  const double end = monotonic_s() + kLastWord_s;
  bool finished = hooks_.run_finished();
  while (!finished && exit_code_ == 0 && !stopping_ && monotonic_s() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    finished = hooks_.run_finished();
  }
  processes_.end_all(5);
  if (exit_code_ == 0 && stopping_) exit_code_ = stoker::exit_code(ErrorKind::kCancelled);
  if (exit_code_ == 0 && !finished) exit_code_ = stoker::exit_code(ErrorKind::kPeer);
  return exit_code_;
}

}  // namespace stoker::cluster
