// train/team.h
// A worker's place among the workers of a run: it forms generations (elastic), builds the communicator of each, and tells the
// coordinator who failed it. Knows no tensors; what to do with a new generation is the trainer's business.
// Transport    shared memory when all members can share it, else TCP (comm/tcp_transport.h; gloo on request)
// Errors       comm::PeerError from the communicator (call lost(), then form() again). Peer: this worker was fenced. Cancelled: the
//              run was stopped or this worker released
// Threads      one, except that the coordinator's line may abort the communicator at any time
#pragma once
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/fault_transport.h"
#include "elastic/worker_link.h"
#include "trace/span_log.h"

namespace stoker::train {

// What a worker says about its state when it comes to the gate.
struct Progress {
  int64_t clock = -1;          // finished batches; -1: no state yet
  bool prepared = false;       // has everything to finish batch `clock` without anybody's help
  int workers = 0, rank = -1;  // the layout in which it holds optimizer state
  std::string text() const;
  static Progress parse(const std::string& text);  // Data
};

struct TeamConfig {
  elastic::LinkConfig link;
  std::string run;                 // names shared memory
  std::string flight_file;         // empty: the flight record stays in memory
  std::string trace_file;          // spans of this worker; empty: sums only
  std::string transport = "auto";  // auto, shm, tcp, gloo
  double timeout_s = 8;            // of a collective
  bool chaos = false;              // messages pass through a FaultTransport that arm() sets off
};

class Team {
 public:
  Team(TeamConfig config, int virtual_ranks);
  ~Team();

  // Until a generation stands and its members are connected.
  void form(const Progress& mine);
  bool formed() const { return comm_ != nullptr; }
  void lost(const comm::PeerError& error);
  int rank() const { return assignment_.rank; }
  int size() const { return static_cast<int>(assignment_.members.size()); }
  uint64_t generation() const { return assignment_.generation; }
  // Why this generation is over, as the coordinator says; empty while it is not. For waits that no collective ends.
  std::string broken() const;
  const std::string& worker() const { return config_.link.who.worker; }
  const std::string& host() const { return config_.link.who.host; }
  const std::string& worker(int rank) const {
    return assignment_.members.at(static_cast<size_t>(rank)).who.worker;
  }
  Progress progress(int rank) const;
  comm::Communicator& comm() { return *comm_; }
  int virtual_ranks() const { return virtual_ranks_; }
  const std::vector<comm::LeafSpan>& spans() const { return spans_; }
  comm::LeafSpan leaves() const { return spans_.at(static_cast<size_t>(rank())); }

  bool regroup_soon() const { return link_->regroup_soon(); }
  bool stop_wanted() const { return link_->stop_wanted(); }
  void phase(std::string_view name, int64_t step);
  void step_done(double compute_s_per_leaf);  // what is told to others is the median of the last few
  void step_took(const std::map<std::string, double>& parts);  // seconds by kind, for whoever looks on
  bool coordinator_answers() const { return link_->coordinator_answers(); }
  std::optional<bool> may_commit(std::string* why, bool wait) { return link_->may_commit(why, wait); }
  void note(const std::string& kind, const std::string& text) { link_->note(kind, text); }
  void leave(bool finished);
  void arm(comm::Fault fault);  // with TeamConfig::chaos: from the next message on, until the next generation

 private:
  elastic::Pulse pulse() const;
  std::map<std::string, double> anatomy() const;
  std::unique_ptr<comm::Transport> connect();
  TeamConfig config_;
  int virtual_ranks_;
  std::unique_ptr<comm::FlightRecorder> recorder_;
  trace::SpanLog phases_;
  elastic::Assignment assignment_;
  std::vector<comm::LeafSpan> spans_;
  mutable std::mutex comm_mutex_;  // comm_ against the abort from the link's thread
  std::unique_ptr<comm::Communicator> comm_;
  comm::FaultTransport* fault_ = nullptr;  // of comm_
  uint64_t broken_ = 0;                    // the last generation that the coordinator called broken
  std::string broken_why_;
  std::atomic<double> compute_s_per_leaf_{0};
  std::deque<double> recent_s_;
  mutable std::mutex took_mutex_;
  std::map<std::string, double> took_s_;  // all steps since the process began
  std::atomic<uint64_t> steps_done_{0};
  std::unique_ptr<elastic::WorkerLink> link_;
};

}  // namespace stoker::train
