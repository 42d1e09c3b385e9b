#include "train/team.h"

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/median.h"
#include "comm/gloo_transport.h"
#include "comm/ring_transport.h"
#include "comm/tcp_transport.h"

namespace stoker::train {
namespace {

constexpr double kConnect_s = 8;
constexpr size_t kRecentSteps = 7;  // one step that was disturbed says nothing about a worker

class LinkRendezvous final : public comm::Rendezvous {
 public:
  explicit LinkRendezvous(elastic::WorkerLink& link) : link_(link) {}
  void set(const std::string& key, const std::string& value) override { link_.put(key, value); }
  std::string get(const std::string& key, double deadline_s) override {
    return link_.get(key, std::max(0.0, deadline_s - monotonic_s()));
  }

 private:
  elastic::WorkerLink& link_;
};

}  // namespace

std::string Progress::text() const {
  return nlohmann::json{{"clock", clock}, {"prepared", prepared}, {"workers", workers}, {"rank", rank}}
      .dump();
}

Progress Progress::parse(const std::string& text) {
  try {
    const auto j = nlohmann::json::parse(text);
    return {j.at("clock"), j.at("prepared"), j.at("workers"), j.at("rank")};
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorKind::kData,
         "a worker's account of its state cannot be read ({}): do all workers run the same stoker?",
         e.what());
  }
}

Team::Team(TeamConfig config, int virtual_ranks)
    : config_(std::move(config)), virtual_ranks_(virtual_ranks), phases_(config_.trace_file) {
  if (config_.transport != "auto" && config_.transport != "shm" && config_.transport != "tcp" &&
      config_.transport != "gloo")
    fail(ErrorKind::kUsage, "transport '{}': expected auto, shm, tcp or gloo", config_.transport);
  recorder_ = config_.flight_file.empty() ? std::make_unique<comm::FlightRecorder>()
                                          : std::make_unique<comm::FlightRecorder>(config_.flight_file);
  phase("start-up", -1);
  config_.link.who.memory_domain = comm::shared_memory_domain();
  link_ = std::make_unique<elastic::WorkerLink>(
      config_.link, [this] { return pulse(); },
      [this](uint64_t broken, const std::string& why) {
        std::lock_guard lock(comm_mutex_);
        broken_ = broken;
        broken_why_ = why;
        if (comm_) comm_->abort(why);
      });
}

Team::~Team() = default;

elastic::Pulse Team::pulse() const {
  const comm::FlightRecord record = recorder_->snapshot();
  const double now = system_clock().unix_s();
  return {record.step,
          record.phase,
          std::max(0.0, now - record.phase_since_s),
          comm::last_call(record, now),
          compute_s_per_leaf_.load(),
          steps_done_.load(),
          nlohmann::json(anatomy()).dump()};
}

// Finished steps by what they spent their time on, which tells waiting from working; beside them the phases that are no step's.
std::map<std::string, double> Team::anatomy() const {
  std::map<std::string, double> out = phases_.totals();
  for (const char* of_a_step : {"data", "compute", "audit", "reduce", "commit", "update", "share"})
    out.erase(of_a_step);
  std::lock_guard lock(took_mutex_);
  for (const auto& [kind, seconds] : took_s_) out[kind] += seconds;
  return out;
}

void Team::step_took(const std::map<std::string, double>& parts) {
  std::lock_guard lock(took_mutex_);
  for (const auto& [kind, seconds] : parts) took_s_[kind] += seconds;
}

std::unique_ptr<comm::Transport> Team::connect() {
  std::vector<comm::PeerInfo> peers;
  bool share = true;
  for (const elastic::Member& m : assignment_.members) {
    peers.push_back({m.rank, m.who.pid, m.who.host, m.who.worker});
    share &= m.who.memory_domain == config_.link.who.memory_domain;
  }
  const double deadline = monotonic_s() + kConnect_s;
  if (config_.transport == "shm" && !share)
    fail(ErrorKind::kUsage, "transport shm: the workers are not all on one host. Use auto or tcp.");
  if (share && config_.transport != "gloo" && config_.transport != "tcp")
    return comm::make_shm_transport({config_.run, assignment_.generation, assignment_.rank, peers}, deadline);
  LinkRendezvous rendezvous(*link_);
  const std::string prefix = fmt::format("{}/{}", config_.run, assignment_.generation);
  if (config_.transport == "gloo")
    return comm::make_gloo_transport({prefix, assignment_.rank, peers, config_.link.who.address}, rendezvous,
                                     deadline);
  return comm::make_tcp_transport(
      {prefix, assignment_.rank, peers, config_.link.who.address, config_.link.token}, rendezvous, deadline);
}

void Team::form(const Progress& mine) {
  elastic::Standing standing;
  for (;;) {
    {
      std::lock_guard lock(comm_mutex_);
      if (comm_) {
        const comm::Standing was = comm_->standing();
        standing = {was.waits_on, was.message, was.waited_s, was.sent};
      }
      comm_.reset();
    }
    phase("regroup", mine.clock);
    assignment_ = link_->form(mine.text(), standing);
    spans_ = comm::even_spans(size(), virtual_ranks_);
    recorder_->place(rank(), generation());
    try {
      std::unique_ptr<comm::Transport> transport = connect();
      fault_ = nullptr;
      if (config_.chaos) {
        auto faulty = std::make_unique<comm::FaultTransport>(std::move(transport), comm::Fault{});
        fault_ = faulty.get();
        transport = std::move(faulty);
      }
      auto made =
          comm::make_communicator(std::move(transport), generation(), config_.timeout_s, recorder_.get());
      std::lock_guard lock(comm_mutex_);
      comm_ = std::move(made);
      if (broken_ == generation()) comm_->abort(broken_why_);  // it broke while we were connecting
      return;
    } catch (const comm::PeerError& e) {
      standing = {e.peer(), -1, kConnect_s, {}};
      lost(e);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kPeer) throw;  // a value of a generation that is over
    }
  }
}

std::string Team::broken() const {
  std::lock_guard lock(comm_mutex_);
  return broken_ == generation() ? (broken_why_.empty() ? "the generation is over" : broken_why_) : "";
}

void Team::lost(const comm::PeerError& error) {
  const int culprit = error.peer();
  if (culprit < 0 || culprit >= size() || culprit == rank())
    return;  // aborted: the coordinator knows already
  link_->accuse(worker(culprit), error.what(), error.ended());
}

Progress Team::progress(int rank) const {
  return Progress::parse(assignment_.members.at(static_cast<size_t>(rank)).state);
}

void Team::phase(std::string_view name, int64_t step) {
  recorder_->phase(name, step);
  phases_.next(name, step);
}
void Team::step_done(double compute_s_per_leaf) {
  recent_s_.push_back(compute_s_per_leaf);
  if (recent_s_.size() > kRecentSteps) recent_s_.pop_front();
  compute_s_per_leaf_ = median({recent_s_.begin(), recent_s_.end()});
  ++steps_done_;
}
void Team::leave(bool finished) { link_->leave(finished); }
void Team::arm(comm::Fault fault) {
  if (fault_ != nullptr) fault_->arm(fault);
}

}  // namespace stoker::train
