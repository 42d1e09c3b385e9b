#include "elastic/coordinator.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "elastic/coordinator.grpc.pb.h"
#include "elastic/wire.h"
#include "io/atomic_write.h"
#include "net/tls_identity.h"

namespace stoker::elastic {
namespace {

using std::chrono::milliseconds;
constexpr auto kTick = milliseconds(50);
constexpr uint64_t kKeptGenerations = 3;
constexpr uint64_t kForEver = uint64_t{1} << 62;

WorkerInfo from_wire(const wire::WorkerInfo& in) {
  return {in.worker(), in.host(), in.pid(), in.address(), in.memory_domain()};
}
Pulse from_wire(const wire::Pulse& in) {
  return {in.step(),       in.phase(),  in.phase_age_s(), in.last_call(), in.compute_s_per_leaf(),
          in.steps_done(), in.anatomy()};
}
Standing from_wire(const wire::Standing& in) {
  return {in.waits_on(), in.message(), in.waited_s(), {in.sent().begin(), in.sent().end()}};
}

}  // namespace

struct Coordinator::Impl final : public wire::Coordinator::Service {
  explicit Impl(CoordinatorConfig c) : config(std::move(c)), membership(config.membership, system_clock()) {
    net::check_token(config.token);
    for (const auto& [key, value] : config.values) values[key] = {value, kForEver};
    if (!config.state_file.empty() && io::real_file_system().exists(config.state_file))
      membership.load(io::read_text(io::real_file_system(), config.state_file));
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT,
                               0);  // a second coordinator must fail, not share the port
    builder.AddListeningPort(
        config.listen.text(),
        net::server_credentials(net::wants_tls(config.tls, config.listen.host), config.token), &port);
    builder.RegisterService(this);
    builder.SetMaxReceiveMessageSize(64 << 20);
    server = builder.BuildAndStart();
    if (server == nullptr || port == 0)
      fail(ErrorKind::kUsage,
           "coordinator: cannot listen on {}. The address is not this machine's or the port is taken.",
           config.listen.text());
    config.listen.port = port;
    writer = std::thread([this] { run_writer(); });
    ticker = std::thread([this] { run_ticker(); });
  }

  ~Impl() override {
    {
      std::lock_guard lock(mutex);
      ending = true;
      changed.notify_all();
    }
    ticker.join();
    server->Shutdown(std::chrono::system_clock::now() + milliseconds(200));
    server->Wait();
    {
      std::lock_guard lock(mutex);
      writer_ends = true;
      to_write.notify_one();
    }
    writer.join();
  }

  void run_ticker() {
    std::unique_lock lock(mutex);
    while (!ending) {
      membership.tick();
      publish();
      changed.wait_for(lock, kTick);
    }
    publish();
  }

  // With the lock: wakes waiting calls and hands what is new to the writer. No disk is touched here: a slow one would keep
  // heartbeats waiting, and healthy workers would look silent.
  void publish() {
    if (membership.generation() != seen_generation) {
      seen_generation = membership.generation();
      std::erase_if(values,
                    [&](const auto& v) { return v.second.generation + kKeptGenerations < seen_generation; });
    }
    const auto events = membership.events_after(last_event);
    if (!events.empty()) {
      last_event = events.back().number;
      changed.notify_all();
      for (const Event& e : events) event_lines += e.json() + "\n";
      if (config.observe) observed.insert(observed.end(), events.begin(), events.end());
    }
    if (membership.changes() != saved_changes && !retired) {
      saved_changes = membership.changes();
      state_text = membership.save();
    }
    if (!event_lines.empty() || !state_text.empty()) to_write.notify_one();
  }

  // What a coordinator that dies has not written yet it learns again from the living: they tell it their generation.
  void run_writer() {
    std::unique_lock lock(mutex);
    for (;;) {
      to_write.wait(lock, [this] { return writer_ends || !event_lines.empty() || !state_text.empty(); });
      if (event_lines.empty() && state_text.empty()) return;
      const std::string lines = std::exchange(event_lines, {}), state = std::exchange(state_text, {});
      const std::vector<Event> seen = std::exchange(observed, {});
      lock.unlock();
      if (!lines.empty() && !config.events_file.empty())
        std::ofstream(config.events_file, std::ios::app) << lines;
      std::string problem;
      try {
        if (!state.empty() && !config.state_file.empty())
          io::write_file_atomic(io::real_file_system(), config.state_file, state);
      } catch (const Error& e) {
        problem = e.what();
      }
      if (!seen.empty()) try {
          config.observe(seen);
        } catch (const std::exception& e) {
          if (problem.empty()) problem = e.what();
        }
      lock.lock();
      // A full disk must not stop the run: it is said once a minute, and the next change tries again.
      if (problem.empty() || monotonic_s() < next_complaint_s) continue;
      next_complaint_s = monotonic_s() + 60;
      membership.note("note", "", fmt::format("the coordinator's files cannot be written: {}", problem));
    }
  }

  template <typename Body>
  grpc::Status guarded(const grpc::ServerContext& context, const Body& body) {
    if (!net::has_token(context, config.token))
      return {grpc::StatusCode::UNAUTHENTICATED, "wrong or missing token"};
    try {
      std::unique_lock lock(mutex);
      body(lock);
      publish();
      return grpc::Status::OK;
    } catch (const Error& e) {
      return {e.kind() == ErrorKind::kUsage ? grpc::StatusCode::INVALID_ARGUMENT : grpc::StatusCode::INTERNAL,
              e.what()};
    } catch (const std::exception& e) {  // one call that nobody foresaw must not end the coordinator
      return {grpc::StatusCode::INTERNAL, e.what()};
    }
  }

  grpc::Status Heartbeat(grpc::ServerContext* context, const wire::HeartbeatRequest* in,
                         wire::HeartbeatReply* out) override {
    return guarded(*context, [&](auto&) {
      const HeartbeatAnswer a =
          membership.heartbeat(from_wire(in->who()), in->generation(), from_wire(in->pulse()));
      out->set_generation(a.generation);
      out->set_fenced(a.fenced);
      out->set_why(a.why);
      out->set_regroup_now(a.regroup_now);
      out->set_regroup_soon(a.regroup_soon);
      out->set_stop(a.stop);
    });
  }

  grpc::Status Form(grpc::ServerContext* context, const wire::FormRequest* in,
                    wire::FormReply* out) override {
    return guarded(*context, [&](std::unique_lock<std::mutex>& lock) {
      membership.arrive(from_wire(in->who()), in->generation(), from_wire(in->pulse()), in->state(),
                        from_wire(in->standing()));
      publish();
      const double end = monotonic_s() + kGateAnswer_s;
      GateAnswer answer;
      for (;;) {
        answer = membership.gate(in->who().worker());
        if (answer.outcome != GateAnswer::Outcome::kWait || ending || monotonic_s() >= end) break;
        if (context->IsCancelled()) {
          membership.withdraw(in->who().worker());
          break;
        }
        changed.wait_for(lock, kTick);
      }
      fill(answer, out);
    });
  }

  static void fill(const GateAnswer& answer, wire::FormReply* out) {
    using Outcome = GateAnswer::Outcome;
    out->set_outcome(answer.outcome == Outcome::kFormed     ? wire::FormReply::FORMED
                     : answer.outcome == Outcome::kFenced   ? wire::FormReply::FENCED
                     : answer.outcome == Outcome::kReleased ? wire::FormReply::RELEASED
                     : answer.outcome == Outcome::kStopped  ? wire::FormReply::STOPPED
                                                            : wire::FormReply::RETRY);
    out->set_generation(answer.generation);
    out->set_rank(answer.rank);
    out->set_why(answer.why);
    for (const Member& m : answer.members) {
      wire::Member* member = out->add_members();
      to_wire(m.who, member->mutable_who());
      member->set_rank(m.rank);
      member->set_previous_rank(m.previous_rank);
      member->set_state(m.state);
    }
  }

  grpc::Status Accuse(grpc::ServerContext* context, const wire::AccuseRequest* in, wire::Empty*) override {
    return guarded(*context, [&](auto&) {
      membership.accuse(in->worker(), in->generation(), in->accused(), in->what(), in->ended());
    });
  }
  grpc::Status Exited(grpc::ServerContext* context, const wire::ExitRequest* in, wire::Empty*) override {
    return guarded(*context, [&](auto&) { membership.ended(in->worker(), in->exit_code(), in->signal()); });
  }
  grpc::Status Leave(grpc::ServerContext* context, const wire::LeaveRequest* in, wire::Empty*) override {
    return guarded(*context, [&](auto&) { membership.leave(in->worker(), in->finished()); });
  }
  grpc::Status MayCommit(grpc::ServerContext* context, const wire::CommitRequest* in,
                         wire::CommitReply* out) override {
    return guarded(*context, [&](auto&) {
      std::string why;
      if (config.successor && !retired)
        if (const std::string who = config.successor(); !who.empty()) retire(who);
      out->set_allowed(membership.may_commit(in->worker(), in->generation(), &why));
      out->set_why(why);
    });
  }
  grpc::Status Put(grpc::ServerContext* context, const wire::PutRequest* in, wire::Empty*) override {
    return guarded(*context, [&](auto&) {
      values[in->key()] = {in->value(), in->generation()};
      changed.notify_all();
    });
  }
  grpc::Status Get(grpc::ServerContext* context, const wire::GetRequest* in, wire::GetReply* out) override {
    return guarded(*context, [&](std::unique_lock<std::mutex>& lock) {
      const double end = monotonic_s() + std::min(in->wait_s(), kGateAnswer_s);
      for (;;) {
        const auto found = values.find(in->key());
        if (found != values.end()) {
          out->set_found(true);
          out->set_value(found->second.value);
          return;
        }
        if (in->generation() != 0 && in->generation() < membership.generation())
          return out->set_outdated(true);
        if (ending || context->IsCancelled() || monotonic_s() >= end) return;
        changed.wait_for(lock, kTick);
      }
    });
  }
  grpc::Status Scale(grpc::ServerContext* context, const wire::ScaleRequest* in, wire::Empty*) override {
    return guarded(*context, [&](auto&) { membership.scale(in->workers()); });
  }
  grpc::Status Stop(grpc::ServerContext* context, const wire::StopRequest* in, wire::Empty*) override {
    return guarded(*context, [&](auto&) { membership.stop(in->why()); });
  }
  grpc::Status Note(grpc::ServerContext* context, const wire::NoteRequest* in, wire::Empty*) override {
    return guarded(*context, [&](auto&) { membership.note(in->kind(), in->worker(), in->text()); });
  }
  grpc::Status Status(grpc::ServerContext* context, const wire::StatusRequest* in,
                      wire::StatusReply* out) override {
    return guarded(*context, [&](auto&) {
      auto j = nlohmann::json::parse(membership.status_json());
      j["events"] = nlohmann::json::array();
      for (const Event& e : membership.events_after(in->events_after()))
        j["events"].push_back(nlohmann::json::parse(e.json()));
      out->set_json(j.dump());
    });
  }

  void retire(const std::string& who) {
    retired = true;
    membership.retire("the run has another coordinator now: " + who);
  }

  struct Value {
    std::string value;
    uint64_t generation = 0;
  };
  CoordinatorConfig config;
  std::mutex mutex;
  std::condition_variable changed, to_write;
  Membership membership;
  std::map<std::string, Value> values;
  uint64_t seen_generation = 0, saved_changes = 0;
  int64_t last_event = 0;
  double next_complaint_s = 0;
  bool ending = false, writer_ends = false, retired = false;
  std::string event_lines, state_text;  // not written yet
  std::vector<Event> observed;          // not told yet
  std::unique_ptr<grpc::Server> server;
  std::thread ticker, writer;
};

Coordinator::Coordinator(CoordinatorConfig config) : impl_(std::make_unique<Impl>(std::move(config))) {}
Coordinator::~Coordinator() = default;
net::Address Coordinator::address() const { return impl_->config.listen; }
bool Coordinator::finished() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->membership.finished();
}
void Coordinator::retire(const std::string& why) {
  std::lock_guard lock(impl_->mutex);
  if (!impl_->retired) impl_->retire(why);
}
void Coordinator::stop(const std::string& why) {
  std::lock_guard lock(impl_->mutex);
  impl_->membership.stop(why);
}
bool Coordinator::nobody_left() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->membership.nobody_left();
}

}  // namespace stoker::elastic
