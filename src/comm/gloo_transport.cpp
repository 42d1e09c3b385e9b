#include "comm/gloo_transport.h"

#include <gloo/common/error.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

#include "base/clock.h"

namespace stoker::comm {
namespace {

using std::chrono::milliseconds;

milliseconds until(double deadline_s) {
  // gloo reads 0 as "for ever", so an expired deadline still waits one millisecond.
  return milliseconds(std::max<int64_t>(1, static_cast<int64_t>((deadline_s - monotonic_s()) * 1e3)));
}

class StoreAdapter final : public gloo::rendezvous::Store {
 public:
  StoreAdapter(Rendezvous& rendezvous, std::string prefix, double deadline_s)
      : rendezvous_(rendezvous), prefix_(std::move(prefix)), deadline_s_(deadline_s) {}
  void set(const std::string& key, const std::vector<char>& data) override {
    rendezvous_.set(prefix_ + "/" + key, std::string(data.begin(), data.end()));
  }
  std::vector<char> get(const std::string& key) override {
    const std::string value = rendezvous_.get(prefix_ + "/" + key, deadline_s_);
    return {value.begin(), value.end()};
  }
  void wait(const std::vector<std::string>& keys) override {
    for (const auto& key : keys) (void)rendezvous_.get(prefix_ + "/" + key, deadline_s_);
  }
  void wait(const std::vector<std::string>& keys, const milliseconds&) override { wait(keys); }

 private:
  Rendezvous& rendezvous_;
  std::string prefix_;
  double deadline_s_;
};

struct GlooTransfer final : Transfer {
  std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
  bool is_send = false;
  bool finished = false;
  char nothing = 0;  // gloo wants memory even for an empty message
};

class GlooTransport final : public Transport {
 public:
  GlooTransport(GlooGroup group, std::shared_ptr<gloo::rendezvous::Context> context)
      : group_(std::move(group)), context_(std::move(context)) {}
  ~GlooTransport() override {
    try {
      context_->closeConnections();
    } catch (const std::exception&) {  // the peers see the sockets close either way
    }
  }
  int rank() const override { return group_.rank; }
  int size() const override { return static_cast<int>(group_.peers.size()); }
  const PeerInfo& peer(int r) const override { return group_.peers.at(static_cast<size_t>(r)); }
  std::string name() const override { return "gloo"; }
  // A piece costs two wake-ups of gloo's own thread and a ready notice each way: fewer and larger ones than rings like. With several
  // peers one from each is enough on its way, more only waits in sockets until it has left the cache; with one peer the wire would
  // stand still (docs/bench.md).
  Pacing pacing() const override {
    return size() > 2 ? Pacing{size_t{2} << 20, 1} : Pacing{size_t{1} << 20, 3};
  }

  Ticket send(int to, uint64_t tag, const void* data, size_t bytes) override {
    return start(to, tag, const_cast<void*>(data), bytes, true);
  }
  Ticket receive(int from, uint64_t tag, void* data, size_t bytes) override {
    return start(from, tag, data, bytes, false);
  }

  void wait(const Ticket& ticket, double deadline_s) override {
    auto& t = static_cast<GlooTransfer&>(*ticket);
    if (t.finished) return;
    {
      std::lock_guard lock(mutex_);
      if (aborted_) throw PeerError(-1, why_);
      waiting_ = &t;
    }
    bool done = false;
    std::string problem;
    try {
      done = t.is_send ? t.buffer->waitSend(until(deadline_s)) : t.buffer->waitRecv(until(deadline_s));
    } catch (const std::exception& e) {
      problem = monotonic_s() >= deadline_s ? "gave no answer before the deadline"
                                            : "broke the connection: " + reason(e);
    }
    std::lock_guard lock(mutex_);
    waiting_ = nullptr;
    t.finished = done;
    if (done) return;
    if (aborted_) throw PeerError(-1, why_);
    throw PeerError(t.peer, fmt::format("{} {}", describe(peer(t.peer)), problem));
  }

  void abort(const std::string& why) override {
    std::lock_guard lock(mutex_);
    if (aborted_) return;
    aborted_ = true;
    why_ = why;
    if (waiting_ == nullptr) return;
    if (waiting_->is_send) waiting_->buffer->abortWaitSend();
    else waiting_->buffer->abortWaitRecv();
  }

 private:
  // gloo prefixes its messages with a source location of its own tree
  static std::string reason(const std::exception& e) {
    const std::string text = e.what();
    const size_t end = text.find("] ");
    return end == std::string::npos ? text : text.substr(end + 2);
  }

  Ticket start(int other, uint64_t tag, void* data, size_t bytes, bool is_send) {
    STOKER_CHECK(other >= 0 && other < size() && other != rank(), "rank {} exchanges with {}", rank(), other);
    {
      std::lock_guard lock(mutex_);
      if (aborted_) throw PeerError(-1, why_);
    }
    auto t = std::make_shared<GlooTransfer>();
    t->peer = other;
    t->tag = tag;
    t->is_send = is_send;
    try {
      t->buffer = context_->createUnboundBuffer(bytes == 0 ? &t->nothing : data, bytes);
      if (is_send) t->buffer->send(other, tag, 0, bytes);
      else t->buffer->recv(other, tag, 0, bytes);
    } catch (const std::exception& e) {
      throw PeerError(other, fmt::format("{} broke the connection: {}", describe(peer(other)), reason(e)));
    }
    return t;
  }

  GlooGroup group_;
  std::shared_ptr<gloo::rendezvous::Context> context_;
  std::mutex mutex_;
  bool aborted_ = false;
  std::string why_;
  GlooTransfer* waiting_ = nullptr;
};

}  // namespace

std::unique_ptr<Transport> make_gloo_transport(const GlooGroup& group, Rendezvous& rendezvous,
                                               double deadline_s) {
  gloo::transport::tcp::attr attribute;
  attribute.hostname = group.address;
  try {
    auto device = gloo::transport::tcp::CreateDevice(attribute);
    auto context =
        std::make_shared<gloo::rendezvous::Context>(group.rank, static_cast<int>(group.peers.size()));
    context->setTimeout(until(deadline_s));
    StoreAdapter store(rendezvous, group.prefix, deadline_s);
    context->connectFullMesh(store, device);
    return std::make_unique<GlooTransport>(group, std::move(context));
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    throw PeerError(
        -1, fmt::format("cannot connect to the group from {}: {}. Check that the hosts can reach each "
                        "other on any TCP port.",
                        group.address, e.what()));
  }
}

}  // namespace stoker::comm
