// cluster/launcher.h
// Starts a coordinator and workers, watches them, starts a replacement for each that is lost, and ends them together.
//   Workers run here or on other hosts over SSH (the join token goes through ssh's stdin, never on a command line).
//   A worker's exit code says what to do (base/error.h): 0 done; 64, 70, 76: the run cannot go on; 75: stop; all else:
//   replace it, at most max_restarts times in all.
// A run that is scaled up and has no spare worker gets more of its launcher.
// A launcher that dies takes its local workers with it (they are told and save); the coordinator's state stays in RUN.
// Errors       Usage: a host list that cannot be read; Peer: no coordinator
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cluster/processes.h"

namespace stoker::cluster {

struct HostSlots {
  std::string host;  // "" is this machine
  int slots = 1;
  bool operator==(const HostSlots&) const = default;
};
// "a,b:4,user@c:2": host[:slots]
std::vector<HostSlots> parse_hosts(const std::string& text);
std::string shell_quote(const std::string& text);
// The ssh command that runs `command` there with this environment and reads STOKER_TOKEN from stdin.
std::vector<std::string> ssh_command(const std::string& host, const std::vector<std::string>& command,
                                     const std::map<std::string, std::string>& environment,
                                     const std::vector<std::string>& ssh);

struct LaunchPlan {
  int workers = 1;
  int minimum = 1;
  std::vector<HostSlots> hosts;  // empty: all here
  std::vector<std::string> worker_command;
  std::vector<std::string> coordinator_command;
  std::map<std::string, std::string> environment;  // of the workers, beside what says who they are
  std::string run_dir;
  std::string token;
  int max_restarts = 1000;
  double grace_s = 20;         // from SIGTERM to SIGKILL
  double zombie_grace_s = 20;  // a worker that the run has put out but that still exists
  double restart_pause_s = 0.1;
  std::vector<std::string> ssh{"ssh"};
  bool quiet = false;
  std::function<std::vector<std::string>(size_t)> prefix;  // words before the command of the worker in slot i
};

// How many workers the run wants, and how many of those that are there, or wait to be, are not this launcher's.
struct Demand {
  int wanted = 0, others = 0;
};

// What the launcher needs from elsewhere; cli connects them to the coordinator.
struct LaunchHooks {
  std::function<void(const ProcessExit&)> worker_ended;
  std::function<std::vector<std::string>()>
      fenced_workers;  // put out by the run although their process may exist
  std::function<bool()> run_finished;
  std::function<void(const std::string&)> stop;  // ask the run to stop
  std::function<bool()> coordinator_answers;
  std::function<std::optional<Demand>(const std::vector<std::string>& own)> demand;  // nothing: not known now
  std::function<void(const std::string&)> say;                                       // one line for the human
};

class Launcher {
 public:
  Launcher(LaunchPlan plan, LaunchHooks hooks);
  ~Launcher();
  void start_coordinator();  // returns when RUN/coordinator holds its address
  void start_workers();
  // One look at everything; false when the run is over. Call every few milliseconds.
  bool step();
  int run();  // start_workers, step until over, exit code of the run
  int exit_code() const { return exit_code_; }
  std::string address() const { return address_; }
  Processes& processes() { return processes_; }
  std::vector<std::string> workers() const;  // names of running workers
  int restarts() const { return restarts_; }

 private:
  struct Slot {
    std::string host;
    std::string worker;  // name of the process in it now
    int incarnation = 0;
    double start_at_s = 0;  // when to start the next one
    double started_s = 0;
    int quick_ends = 0;  // in a row: ended by themselves a moment after they began
    bool done = false;
  };
  void start_worker(Slot& slot);
  std::string log_of(const std::string& worker) const;
  void handle(const ProcessExit& exit);
  void check_fenced(double now);
  bool fill_places(double now);
  LaunchPlan plan_;
  LaunchHooks hooks_;
  Processes processes_;
  std::vector<Slot> slots_;
  std::map<std::string, double> zombies_;  // worker -> when to kill it
  std::string address_;
  int restarts_ = 0, exit_code_ = 0, given_up_ = 0;
  double next_fence_check_s_ = 0, give_up_at_s_ = 0, short_since_s_ = 0;
  bool stopping_ = false;
};

}  // namespace stoker::cluster
