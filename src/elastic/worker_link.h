// elastic/worker_link.h
// A worker's line to the coordinator: a heartbeat thread, the gate where generations form, and small shared
// values. Outages      every call is repeated until the coordinator is back (outage_s); meanwhile the run
// goes on in its generation Threads      methods from the training thread; the break hook runs on the
// heartbeat thread Errors       Peer: fenced (this process must end: exit 69) or the coordinator stayed away
// for outage_s. Cancelled: the run
//              was stopped, or this worker was released
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "elastic/membership.h"
#include "net/rpc.h"

namespace stoker::elastic {

struct LinkConfig {
  net::Address coordinator;
  net::Tls tls = net::Tls::kAuto;
  std::string token;
  WorkerInfo who;
  double heartbeat_s = 0.25;
  double outage_s = 60;
  std::string address_file;  // where a moved coordinator writes its address; empty: it never moves
};

// This worker is not needed any more (scaled down, or the run is complete): a good end.
class Released : public Error {
 public:
  explicit Released(const std::string& message) : Error(ErrorKind::kCancelled, message) {}
};

struct Assignment {
  uint64_t generation = 0;
  int rank = -1;
  std::vector<Member> members;  // by rank; state is what each said in form()
  const Member& me() const { return members.at(static_cast<size_t>(rank)); }
};

class WorkerLink {
 public:
  // pulse: asked from the heartbeat thread. broken: called on the heartbeat thread, once per generation, when
  // the generation cannot go on (abort the communicator there).
  WorkerLink(LinkConfig config, std::function<Pulse()> pulse,
             std::function<void(uint64_t, const std::string&)> broken);
  ~WorkerLink();
  WorkerLink(const WorkerLink&) = delete;

  // Blocks until a generation has formed. standing: in the one before.
  Assignment form(const std::string& state, const Standing& standing = {});
  bool regroup_soon() const;  // leave after this step, together
  bool stop_wanted() const;
  bool fenced() const;
  bool coordinator_answers() const;  // as of the last heartbeat; asks nobody
  void accuse(const std::string& worker, const std::string& what, bool ended = false);
  void leave(bool finished);
  // May this worker make a checkpoint valid? Nothing when the coordinator does not answer at once; with `wait` its outages are waited
  // out, and Peer when it stays away.
  std::optional<bool> may_commit(std::string* why, bool wait);
  void note(const std::string& kind, const std::string& text);

  void put(const std::string& key, const std::string& value);
  std::string get(const std::string& key,
                  double timeout_s);  // Peer when it does not come or the generation is over

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// For supervisors and commands.
class CoordinatorClient {
 public:
  CoordinatorClient(net::Address address, net::Tls tls, std::string token);
  ~CoordinatorClient();
  void exited(const std::string& worker, int exit_code, int signal);
  void scale(int workers);
  void stop(const std::string& why);
  void note(const std::string& kind, const std::string& worker, const std::string& text);
  std::string status(int64_t events_after = 0);  // JSON
  std::string value(const std::string& key);     // empty: not there
  bool answers(double timeout_s);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace stoker::elastic
