// elastic/membership.h
// Who is in the run, as a state machine without threads or network: the coordinator's whole judgement,
// testable with a fake clock.
//   A generation is a fixed list of ranks. It forms when every live worker has come to the gate (form) and
//   there are enough of them; it breaks when a member dies, hangs, is cut off, or leaves. A worker that the
//   run has given up is fenced: it may never come back under its name, write checkpoints or join a
//   generation.
// Detection    ended: its supervisor or a peer's report plus a missing heartbeat; silent: no heartbeat for
//              heartbeat_timeout_s; stuck: alive but not at the gate regroup_timeout_s after the generation
//              broke; blamed: held the others up when a generation broke (elastic/blame.h; not while it says that it
//              waits for data); link: blamed in kBlames generations without a finished step between;
//              slow: more than straggler_factor x the median compute time for straggler_steps steps (named,
//              not evicted)
// Standstill   where the coordinator itself stood still (a machine that slept, a paused virtual machine) nobody was heard and everybody's
//              deadlines have passed: that time counts against nobody, and accusations that come right after it accuse nobody
// Ranks        survivors keep their order, newcomers follow in the order of joining
// Persistence  save/load carry run, generation, members, fences and target; a coordinator that comes back waits for the old members'
//              heartbeats as if it had never been away, but longer: they must find it first. Nobody waits for one that is dead: the
//              others accuse it when their link to it ends
// Threads      none: the caller locks
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "elastic/blame.h"

namespace stoker::elastic {

struct WorkerInfo {
  std::string worker, host;
  int64_t pid = 0;
  std::string address, memory_domain;
};

struct Pulse {
  int64_t step = -1;
  std::string phase;
  double phase_age_s = 0;
  std::string last_call;
  double compute_s_per_leaf = 0;
  uint64_t steps_done = 0;
  std::string anatomy = "";  // JSON object: seconds by phase since the process began
};

struct MembershipConfig {
  std::string run = "run";
  int target = 1;   // workers wanted
  int minimum = 1;  // below this the run waits
  double heartbeat_timeout_s = 5.0;
  double regroup_timeout_s = 8.0;
  // Only workers whose name begins so (and those of stoker join): an attempt of a requeued job. Empty: all.
  std::string admit = "";
  double gather_s = 20.0;  // the first generation waits this long for `target` workers
  double straggler_factor = 1.6;
  int straggler_steps = 8;
};

struct Event {
  int64_t number = 0;
  double unix_s = 0;
  std::string
      kind;  // joined formed ended silent stuck accused blamed standstill link slow fenced-call released left finished scale stop note
  std::string worker, host, phase, last_call, text;
  int64_t pid = 0;
  int rank = -1;
  uint64_t generation = 0;
  int64_t step = -1;
  std::string json() const;
};

struct Member {
  WorkerInfo who;
  int rank = -1;
  int previous_rank = -1;  // in the generation before; -1: new
  std::string state;       // what the worker said at the gate; opaque here
};

struct GateAnswer {
  enum class Outcome { kWait, kFormed, kFenced, kReleased, kStopped } outcome = Outcome::kWait;
  uint64_t generation = 0;
  int rank = -1;
  std::vector<Member> members;
  std::string why;
};

struct HeartbeatAnswer {
  uint64_t generation = 0;
  bool fenced = false, regroup_now = false, regroup_soon = false, stop = false;
  std::string why;
};

class Membership {
 public:
  Membership(MembershipConfig config, Clock& clock);

  HeartbeatAnswer heartbeat(const WorkerInfo& who, uint64_t generation, const Pulse& pulse);
  // The worker stands at the gate from now on; gate() tells whether it may pass.
  // standing: in `generation`.
  void arrive(const WorkerInfo& who, uint64_t generation, const Pulse& pulse, std::string state,
              Standing standing = {});
  GateAnswer gate(const std::string& worker);
  void withdraw(const std::string& worker);  // its call ended before a generation formed

  void accuse(const std::string& worker, uint64_t generation, const std::string& accused,
              const std::string& what, bool ended = false);
  void ended(const std::string& worker, int exit_code, int signal);
  void leave(const std::string& worker, bool finished);
  bool may_commit(const std::string& worker, uint64_t generation, std::string* why);
  void scale(int workers);
  void stop(const std::string& why);
  // Another coordinator has taken over: everybody here is put out, for good.
  void retire(const std::string& why);
  void note(const std::string& kind, const std::string& worker, const std::string& text);

  void tick();  // judge deadlines; call several times a second

  uint64_t generation() const { return generation_; }
  bool finished() const { return finished_; }
  bool nobody_left() const;  // there were workers and all are gone
  std::vector<Event> events_after(int64_t number) const;
  std::string status_json() const;
  std::string save() const;
  void load(const std::string& text);            // Data errors
  uint64_t changes() const { return changes_; }  // grows when save() would differ

 private:
  enum class Life { kJoining, kMember, kGone };
  struct Worker {
    WorkerInfo who;
    Life life = Life::kJoining;
    int rank = -1;
    int64_t joined = 0;
    double last_heard_s = 0;
    bool must_find_us = false;  // known from a file, not heard since
    Pulse pulse;
    bool at_gate = false;
    std::string state;
    std::optional<Standing> standing;  // in the current generation, since it came to the gate
    uint64_t formed = 0;               // generation that this worker was given and has not yet been told
    int slow_steps = 0;
    bool slow_named = false;
    uint64_t judged_steps = 0;
    std::string why;  // for the gone
    bool released = false;
  };
  Worker& know(const WorkerInfo& who);
  Worker* find(const std::string& worker);
  bool admits(const std::string& worker) const;
  void remove(Worker& w, const std::string& kind, const std::string& why);
  void break_generation(const std::string& why);
  void try_form();
  void judge_speed();
  void judge_waiting(bool all_are_here);
  void notice_standstill();
  std::vector<Worker*> live();
  Event& record(const std::string& kind, const Worker* w, const std::string& text);

  MembershipConfig config_;
  Clock& clock_;
  std::map<std::string, Worker> workers_;
  uint64_t generation_ = 0;
  bool broken_ = true;  // the current generation may not go on
  double broken_since_s_;
  std::string broken_why_ = "the run begins";
  std::vector<Member> members_;
  std::map<std::string, int> accusers_;               // in this generation
  bool judged_ = false;                               // likewise: who held it up has been settled
  std::map<std::string, std::set<uint64_t>> blamed_;  // generations, since the last step
  int64_t blamed_step_ = -1;
  std::map<std::string, double> account_s_;  // wall time: "training", or what kept the run from it
  std::string lost_to_ = "start-up";
  std::deque<Event> events_;
  std::optional<double> last_awake_s_;
  double stood_still_s_ = 0, awake_since_s_ = 0;  // the last time that this process stood still; 0: never
  int64_t next_event_ = 1;
  int64_t next_join_ = 0;
  bool stopping_ = false, finished_ = false;
  double no_generation_before_s_ = 0;  // zombies of another attempt may still write until they have been told
  std::string stop_why_;
  uint64_t changes_ = 0;
};

}  // namespace stoker::elastic
