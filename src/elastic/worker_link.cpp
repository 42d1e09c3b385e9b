#include "elastic/worker_link.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "base/stop.h"
#include "elastic/coordinator.grpc.pb.h"
#include "elastic/wire.h"

namespace stoker::elastic {
namespace {

constexpr double kCall_s = 2;
constexpr double kQuickCall_s = 0.5;  // a coordinator that has moved must be found long before it misses us
constexpr auto kRetryPause = std::chrono::milliseconds(50);

void to_wire(const Pulse& in, wire::Pulse* out) {
  out->set_step(in.step);
  out->set_phase(in.phase);
  out->set_phase_age_s(in.phase_age_s);
  out->set_last_call(in.last_call);
  out->set_compute_s_per_leaf(in.compute_s_per_leaf);
  out->set_steps_done(in.steps_done);
  out->set_anatomy(in.anatomy);
}
void to_wire(const Standing& in, wire::Standing* out) {
  out->set_waits_on(in.waits_on);
  out->set_message(in.message);
  out->set_waited_s(in.waited_s);
  out->mutable_sent()->Assign(in.sent.begin(), in.sent.end());
}

// A stub that survives its coordinator: calls are repeated, and the address is read again when a file names
// it.
class Line {
 public:
  Line(net::Address address, net::Tls tls, std::string token, std::string address_file)
      : address_(std::move(address)), tls_(tls), token_(std::move(token)), file_(std::move(address_file)) {
    connect();
  }

  template <typename Request, typename Reply>
  using Method = grpc::Status (wire::Coordinator::Stub::*)(grpc::ClientContext*, const Request&, Reply*);

  template <typename Request, typename Reply>
  grpc::Status once(Method<Request, Reply> method, const Request& request, Reply* reply, double timeout_s) {
    std::shared_ptr<wire::Coordinator::Stub> stub;
    {
      std::lock_guard lock(mutex_);
      stub = stub_;
    }
    grpc::ClientContext context;
    net::add_token(context, token_, timeout_s);
    // A connection is made only while a call waits for it: failing at once would mean never to connect again, since a TLS handshake
    // takes several turns.
    context.set_wait_for_ready(true);
    const grpc::Status status = (stub.get()->*method)(&context, request, reply);
    if (!status.ok() && net::is_retryable(status)) look_for_move();
    return status;
  }

  template <typename Request, typename Reply>
  Reply repeat(Method<Request, Reply> method, const Request& request, double each_s, double outage_s,
               const std::atomic<bool>* give_up = nullptr) {
    const double end = monotonic_s() + outage_s;
    for (double wait_s = std::min(each_s, each_s > kCall_s ? each_s : kQuickCall_s);; wait_s = each_s) {
      Reply reply;
      const grpc::Status status = once(method, request, &reply, wait_s);
      if (status.ok()) return reply;
      if (!net::is_retryable(status) || monotonic_s() >= end || (give_up != nullptr && give_up->load()))
        throw net::status_error(status, "the coordinator", address(), net::wants_tls(tls_, address().host),
                                token_);
      std::this_thread::sleep_for(kRetryPause);
    }
  }

  net::Address address() {
    std::lock_guard lock(mutex_);
    return address_;
  }

 private:
  void connect() {
    stub_ =
        wire::Coordinator::NewStub(net::make_channel(address_, net::wants_tls(tls_, address_.host), token_));
  }
  void look_for_move() {
    if (file_.empty()) return;
    std::ifstream in(file_);
    std::string text;
    if (!(in >> text)) return;
    try {
      const net::Address found = net::parse_address(text);
      std::lock_guard lock(mutex_);
      if (found.text() == address_.text()) return;
      address_ = found;
      connect();
    } catch (const Error&) {  // half a line: the next try reads it whole
    }
  }

  std::mutex mutex_;
  net::Address address_;
  net::Tls tls_;
  std::string token_, file_;
  std::shared_ptr<wire::Coordinator::Stub> stub_;
};

}  // namespace

struct WorkerLink::Impl {
  Impl(LinkConfig c, std::function<Pulse()> p, std::function<void(uint64_t, const std::string&)> b)
      : config(std::move(c)),
        pulse(std::move(p)),
        broken(std::move(b)),
        line(config.coordinator, config.tls, config.token, config.address_file),
        beat_line(config.coordinator, config.tls, config.token, config.address_file),
        thread([this] { beat(); }) {}
  ~Impl() {
    {
      std::lock_guard lock(mutex);
      ending = true;
    }
    wake.notify_all();
    thread.join();
  }

  void beat() {
    std::unique_lock lock(mutex);
    while (!ending) {
      lock.unlock();
      wire::HeartbeatRequest request;
      wire::HeartbeatReply reply;
      to_wire(config.who, request.mutable_who());
      to_wire(pulse(), request.mutable_pulse());
      const uint64_t mine = generation.load();
      request.set_generation(mine);
      const grpc::Status status =
          beat_line.once(&wire::Coordinator::Stub::Heartbeat, request, &reply, kQuickCall_s);
      answers = status.ok();
      if (status.ok()) judge(mine, reply);
      lock.lock();
      wake.wait_for(lock, std::chrono::duration<double>(config.heartbeat_s), [this] { return ending; });
    }
  }

  void judge(uint64_t mine, const wire::HeartbeatReply& reply) {
    stop = stop || reply.stop();
    soon = reply.regroup_soon();
    if (reply.fenced()) {
      std::lock_guard lock(mutex);
      why = reply.why();
      is_fenced = true;
    }
    if ((reply.fenced() || reply.regroup_now()) && mine > 0 && mine == generation.load() &&
        told_broken.exchange(mine) != mine)
      broken(mine, reply.fenced() ? fmt::format("this worker was put out of the run: {}", reply.why())
                                  : reply.why());
  }

  [[noreturn]] void fail_fenced(const std::string& reason) {
    is_fenced = true;
    fail(ErrorKind::kPeer,
         "{} was put out of the run: {}. This process ends so that it cannot disturb the others.",
         config.who.worker, reason);
  }

  LinkConfig config;
  std::function<Pulse()> pulse;
  std::function<void(uint64_t, const std::string&)> broken;
  Line line, beat_line;
  std::mutex mutex;
  std::condition_variable wake;
  bool ending = false;
  std::string why;
  std::atomic<uint64_t> generation{0}, told_broken{0};
  std::atomic<bool> soon{false}, stop{false}, is_fenced{false}, answers{true};
  std::thread thread;
};

WorkerLink::WorkerLink(LinkConfig config, std::function<Pulse()> pulse,
                       std::function<void(uint64_t, const std::string&)> broken)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(pulse), std::move(broken))) {}
WorkerLink::~WorkerLink() = default;

Assignment WorkerLink::form(const std::string& state, const Standing& standing) {
  wire::FormRequest request;
  to_wire(impl_->config.who, request.mutable_who());
  request.set_generation(impl_->generation.load());
  request.set_state(state);
  to_wire(standing, request.mutable_standing());
  for (;;) {
    to_wire(impl_->pulse(), request.mutable_pulse());
    const auto reply =
        impl_->line.repeat(&wire::Coordinator::Stub::Form, request, kGateCall_s, impl_->config.outage_s);
    switch (reply.outcome()) {
      case wire::FormReply::FENCED:
        impl_->fail_fenced(reply.why());
      case wire::FormReply::RELEASED:
        throw Released(fmt::format("{} is released: {}", impl_->config.who.worker, reply.why()));
      case wire::FormReply::STOPPED:
        fail(ErrorKind::kCancelled, "the run was stopped: {}", reply.why());
      case wire::FormReply::FORMED: {
        Assignment out;
        out.generation = reply.generation();
        out.rank = reply.rank();
        for (const wire::Member& m : reply.members())
          out.members.push_back(
              {{m.who().worker(), m.who().host(), m.who().pid(), m.who().address(), m.who().memory_domain()},
               m.rank(),
               m.previous_rank(),
               m.state()});
        if (out.rank < 0 || static_cast<size_t>(out.rank) >= out.members.size())
          fail(ErrorKind::kPeer, "the coordinator gave rank {} of {} members: not one of this run", out.rank,
               out.members.size());
        impl_->soon = false;
        impl_->generation = out.generation;
        return out;
      }
      default:
        break;  // again
    }
    if (stop_requested() &&
        impl_->generation == 0) {  // a member saves first: it stops in its next step's vote
      leave(false);
      throw Released(fmt::format("{} was asked to stop while it waited for a place in the run",
                                 impl_->config.who.worker));
    }
  }
}

bool WorkerLink::regroup_soon() const { return impl_->soon; }
bool WorkerLink::stop_wanted() const { return impl_->stop; }
bool WorkerLink::fenced() const { return impl_->is_fenced; }
bool WorkerLink::coordinator_answers() const { return impl_->answers; }

void WorkerLink::accuse(const std::string& worker, const std::string& what, bool ended) {
  wire::AccuseRequest request;
  request.set_worker(impl_->config.who.worker);
  request.set_generation(impl_->generation.load());
  request.set_accused(worker);
  request.set_what(what);
  request.set_ended(ended);
  impl_->line.repeat(&wire::Coordinator::Stub::Accuse, request, kCall_s, impl_->config.outage_s);
}

void WorkerLink::leave(bool finished) {
  wire::LeaveRequest request;
  request.set_worker(impl_->config.who.worker);
  request.set_finished(finished);
  wire::Empty reply;
  (void)impl_->line.once(&wire::Coordinator::Stub::Leave, request, &reply,
                         kCall_s);  // a courtesy: absence works too
}

std::optional<bool> WorkerLink::may_commit(std::string* why, bool wait) {
  wire::CommitRequest request;
  request.set_worker(impl_->config.who.worker);
  request.set_generation(impl_->generation.load());
  constexpr auto kMethod = &wire::Coordinator::Stub::MayCommit;
  wire::CommitReply reply;
  if (wait) reply = impl_->line.repeat(kMethod, request, kCall_s, impl_->config.outage_s);
  else if (!impl_->line.once(kMethod, request, &reply, kQuickCall_s).ok()) return {};
  *why = reply.why();
  return reply.allowed();
}

void WorkerLink::note(const std::string& kind, const std::string& text) {
  wire::NoteRequest request;
  request.set_kind(kind);
  request.set_worker(impl_->config.who.worker);
  request.set_text(text);
  wire::Empty reply;
  (void)impl_->line.once(&wire::Coordinator::Stub::Note, request, &reply, kCall_s);
}

void WorkerLink::put(const std::string& key, const std::string& value) {
  wire::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  request.set_generation(impl_->generation.load());
  impl_->line.repeat(&wire::Coordinator::Stub::Put, request, kCall_s, impl_->config.outage_s);
}

std::string WorkerLink::get(const std::string& key, double timeout_s) {
  const double end = monotonic_s() + timeout_s;
  wire::GetRequest request;
  request.set_key(key);
  request.set_generation(impl_->generation.load());
  for (;;) {
    const double left = end - monotonic_s();
    request.set_wait_s(std::clamp(left, 0.0, 1.0));
    const auto reply =
        impl_->line.repeat(&wire::Coordinator::Stub::Get, request, kCall_s, std::max(left, 0.1));
    if (reply.found()) return reply.value();
    if (reply.outdated())
      fail(ErrorKind::kPeer, "value '{}' was wanted in generation {}, which is over", key,
           request.generation());
    if (monotonic_s() >= end)
      fail(ErrorKind::kPeer, "value '{}' did not come within {:.1f} s", key, timeout_s);
  }
}

struct CoordinatorClient::Impl {
  Line line;
};
CoordinatorClient::CoordinatorClient(net::Address address, net::Tls tls, std::string token)
    : impl_(new Impl{{std::move(address), tls, std::move(token), ""}}) {}
CoordinatorClient::~CoordinatorClient() = default;

void CoordinatorClient::exited(const std::string& worker, int exit_code, int signal) {
  wire::ExitRequest request;
  request.set_worker(worker);
  request.set_exit_code(exit_code);
  request.set_signal(signal);
  impl_->line.repeat(&wire::Coordinator::Stub::Exited, request, kCall_s, 5);
}
void CoordinatorClient::scale(int workers) {
  wire::ScaleRequest request;
  request.set_workers(workers);
  impl_->line.repeat(&wire::Coordinator::Stub::Scale, request, kCall_s, 5);
}
void CoordinatorClient::stop(const std::string& why) {
  wire::StopRequest request;
  request.set_why(why);
  impl_->line.repeat(&wire::Coordinator::Stub::Stop, request, kCall_s, 5);
}
void CoordinatorClient::note(const std::string& kind, const std::string& worker, const std::string& text) {
  wire::NoteRequest request;
  request.set_kind(kind);
  request.set_worker(worker);
  request.set_text(text);
  impl_->line.repeat(&wire::Coordinator::Stub::Note, request, kCall_s, 5);
}
std::string CoordinatorClient::status(int64_t events_after) {
  wire::StatusRequest request;
  request.set_events_after(events_after);
  return impl_->line.repeat(&wire::Coordinator::Stub::Status, request, kCall_s, 5).json();
}
std::string CoordinatorClient::value(const std::string& key) {
  wire::GetRequest request;
  request.set_key(key);
  return impl_->line.repeat(&wire::Coordinator::Stub::Get, request, kCall_s, 5).value();
}
bool CoordinatorClient::answers(double timeout_s) {
  wire::StatusRequest request;
  wire::StatusReply reply;
  request.set_events_after(std::numeric_limits<int64_t>::max());
  return impl_->line.once(&wire::Coordinator::Stub::Status, request, &reply, timeout_s).ok();
}

}  // namespace stoker::elastic
