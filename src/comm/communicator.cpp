#include "comm/communicator.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/clock.h"
#include "comm/counted_transport.h"
#include "comm/tree_exchange.h"

namespace stoker::comm {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

// Some ranks of a transport, numbered anew. Errors keep the numbers of the whole.
class SubTransport final : public Transport {
 public:
  SubTransport(Transport& whole, std::vector<int> ranks) : whole_(whole), ranks_(std::move(ranks)) {
    const auto mine = std::find(ranks_.begin(), ranks_.end(), whole.rank());
    if (mine == ranks_.end())
      fail(ErrorKind::kUsage, "subgroup: rank {} is not one of its {} ranks", whole.rank(), ranks_.size());
    rank_ = static_cast<int>(mine - ranks_.begin());
  }
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(ranks_.size()); }
  const PeerInfo& peer(int r) const override { return whole_.peer(at(r)); }
  std::string name() const override { return whole_.name(); }
  Ticket send(int to, uint64_t tag, const void* data, size_t bytes) override {
    return whole_.send(at(to), tag, data, bytes);
  }
  Ticket receive(int from, uint64_t tag, void* data, size_t bytes) override {
    return whole_.receive(at(from), tag, data, bytes);
  }
  void wait(const Ticket& ticket, double deadline_s) override { whole_.wait(ticket, deadline_s); }
  void progress() override { whole_.progress(); }
  void abort(const std::string& why) override { whole_.abort(why); }
  Pacing pacing() const override { return whole_.pacing(); }
  Standing standing() const override { return whole_.standing(); }

 private:
  int at(int r) const { return ranks_.at(static_cast<size_t>(r)); }
  Transport& whole_;
  std::vector<int> ranks_;
  int rank_ = 0;
};

class TransportCommunicator final : public Communicator {
 public:
  // salt: keeps the tags of groups that share connections apart.
  TransportCommunicator(std::unique_ptr<Transport> transport, uint64_t generation, double timeout_s,
                        FlightRecorder* recorder, uint64_t salt = 0)
      : transport_(std::move(transport)),
        generation_(generation),
        timeout_s_(timeout_s),
        own_(recorder == nullptr ? std::make_unique<FlightRecorder>() : nullptr),
        recorder_(recorder == nullptr ? *own_ : *recorder),
        salt_(salt),
        posted_sends_(static_cast<size_t>(transport_->size()), 0),
        posted_receives_(static_cast<size_t>(transport_->size()), 0) {
    if (salt_ == 0) recorder_.place(rank(), generation);
  }

  int rank() const override { return transport_->rank(); }
  int size() const override { return transport_->size(); }
  uint64_t generation() const override { return generation_; }
  const PeerInfo& peer(int r) const override { return transport_->peer(r); }
  std::string transport() const override { return transport_->name(); }
  void set_timeout(double timeout_s) override { timeout_s_ = timeout_s; }
  void abort(const std::string& why) override { transport_->abort(why); }
  FlightRecorder& recorder() override { return recorder_; }
  Standing standing() const override { return transport_->standing(); }
  double busy_s() const override { return busy_s_; }
  uint64_t bytes_sent() const override { return wire_.bytes_sent; }

  void barrier(double timeout_s) override {
    run("barrier", 0, timeout_s, [&] {
      for (int hop = 1; hop < size();
           hop *= 2) {  // dissemination: after log2(n) rounds everybody has heard of everybody
        wire_.send((rank() + hop) % size(), nullptr, 0);
        wire_.receive((rank() - hop + size()) % size(), nullptr, 0);
        wire_.wait_all();
      }
    });
  }

  void broadcast(std::span<std::byte> data, int root, double timeout_s) override {
    if (root < 0 || root >= size())
      fail(ErrorKind::kUsage, "broadcast from rank {}: expected 0..{}", root, size() - 1);
    run("broadcast", data.size(), timeout_s, [&] {
      const int me = (rank() - root + size()) % size();  // binomial tree rooted at 0
      const auto real = [&](int r) { return (r + root) % size(); };
      int low = 1;
      while (me != 0 && (me & low) == 0) low *= 2;
      if (me == 0)
        while (low < size()) low *= 2;
      for (size_t at = 0; at == 0 || at < data.size(); at += kChunk) {
        const size_t n = std::min(kChunk, data.size() - at);
        if (me != 0) wire_.wait(wire_.receive(real(me - low), data.data() + at, n));
        for (int hop = low / 2; hop >= 1; hop /= 2)
          if (me + hop < size()) wire_.send(real(me + hop), data.data() + at, n);
      }
      wire_.wait_all();
    });
  }

  void all_gather(std::span<const std::byte> in, std::span<std::byte> out, double timeout_s) override {
    if (out.size() != in.size() * static_cast<size_t>(size()))
      fail(ErrorKind::kUsage, "all_gather: expected {} x {} bytes of output, found {}", size(), in.size(),
           out.size());
    run("all_gather", out.size(), timeout_s, [&] {
      std::byte* mine = out.data() + in.size() * static_cast<size_t>(rank());
      if (!in.empty() && mine != in.data()) std::memcpy(mine, in.data(), in.size());
      for (int hop = 1; hop < size(); ++hop) {
        const int to = (rank() + hop) % size(), from = (rank() - hop + size()) % size();
        wire_.receive(from, out.data() + in.size() * static_cast<size_t>(from), in.size());
        wire_.send(to, mine, in.size());
      }
      wire_.wait_all();
    });
  }

  void all_gather_parts(std::span<std::byte> data, std::span<const size_t> begins,
                        double timeout_s) override {
    if (begins.size() != static_cast<size_t>(size()) + 1 || begins.back() > data.size() ||
        !std::is_sorted(begins.begin(), begins.end()))
      fail(ErrorKind::kUsage, "all_gather_parts: expected {} rising offsets within {} bytes, found {}",
           size() + 1, data.size(), begins.size());
    run("all_gather", data.size(), timeout_s, [&] {
      const auto part = [&](int r) {
        const size_t b = begins[static_cast<size_t>(r)], e = begins[static_cast<size_t>(r) + 1];
        return data.subspan(b, e - b);
      };
      for (int hop = 1; hop < size(); ++hop) {
        const int to = (rank() + hop) % size(), from = (rank() - hop + size()) % size();
        wire_.receive(from, part(from).data(), part(from).size());
        wire_.send(to, part(rank()).data(), part(rank()).size());
      }
      wire_.wait_all();
    });
  }

  void all_reduce(std::span<double> data, Reduce op, double timeout_s) override {
    small_all_reduce(data, op, timeout_s);
  }
  void all_reduce(std::span<int64_t> data, Reduce op, double timeout_s) override {
    small_all_reduce(data, op, timeout_s);
  }

  void send(std::span<const std::byte> data, int to, double timeout_s) override {
    run(
        "send", data.size(), timeout_s, [&] { wire_.wait(wire_.send(to, data.data(), data.size())); }, to);
  }
  void receive(std::span<std::byte> data, int from, double timeout_s) override {
    run(
        "receive", data.size(), timeout_s, [&] { wire_.wait(wire_.receive(from, data.data(), data.size())); },
        from);
  }
  void exchange(std::span<const std::byte> out, int to, std::span<std::byte> in, int from,
                double timeout_s) override {
    run("exchange", out.size(), timeout_s, [&] {
      wire_.receive(from, in.data(), in.size());
      wire_.send(to, out.data(), out.size());
      wire_.wait_all();
    });
  }

  Ticket post_send(std::span<const std::byte> data, int to) override {
    if (broken_) throw *broken_;
    wire_.bytes_sent += data.size();
    return guarded("send", data.size(), 0, [&] {
      return transport_->send(to, kPosted | salt_ << 56 | posted_sends_.at(static_cast<size_t>(to))++,
                              data.data(), data.size());
    });
  }
  Ticket post_receive(std::span<std::byte> data, int from) override {
    if (broken_) throw *broken_;
    return guarded("receive", data.size(), 0, [&] {
      return transport_->receive(from,
                                 kPosted | salt_ << 56 | posted_receives_.at(static_cast<size_t>(from))++,
                                 data.data(), data.size());
    });
  }
  void await(const Ticket& ticket, double timeout_s) override {
    if (broken_) throw *broken_;
    recorder_.begin(sequence_, "await", 0);
    recorder_.waiting_on(ticket->peer);
    guarded("await", 0, 0,
            [&] { transport_->wait(ticket, monotonic_s() + (timeout_s > 0 ? timeout_s : timeout_s_)); });
    recorder_.end(CallState::kDone);
  }
  void poll() override {
    if (!broken_) guarded("poll", 0, 0, [&] { transport_->progress(); });
  }

  std::unique_ptr<Communicator> subgroup(std::vector<int> ranks) override {
    uint64_t salt = 1;
    for (const int r : ranks) salt = salt * 31 + static_cast<uint64_t>(r) + 7;
    return std::make_unique<TransportCommunicator>(
        std::make_unique<SubTransport>(*transport_, std::move(ranks)), generation_, timeout_s_, &recorder_,
        salt % 127 + 1);
  }

  void tree_all_reduce(std::span<float* const> partials, size_t elements, std::span<const LeafSpan> spans,
                       float* out, std::span<const size_t> cuts, double timeout_s) override {
    TreeExchange exchange(partials, elements, spans, cuts, rank());
    run("tree_all_reduce", elements * sizeof(float), timeout_s, [&] { exchange.all_reduce(wire_, out); });
  }
  void tree_reduce_scatter(std::span<float* const> partials, size_t elements, std::span<const LeafSpan> spans,
                           float* out, std::span<const size_t> cuts, double timeout_s) override {
    TreeExchange exchange(partials, elements, spans, cuts, rank());
    run("reduce_scatter", elements * sizeof(float), timeout_s, [&] { exchange.reduce_scatter(wire_, out); });
  }

 private:
  template <typename T>
  void small_all_reduce(std::span<T> data, Reduce op, double timeout_s) {
    const size_t n = data.size();
    std::vector<T> all(n * static_cast<size_t>(size()));
    run("all_reduce", data.size_bytes(), timeout_s, [&] {
      for (int r = 0; r < size(); ++r) {
        if (r == rank()) continue;
        wire_.receive(r, all.data() + n * static_cast<size_t>(r), data.size_bytes());
        wire_.send(r, data.data(), data.size_bytes());
      }
      wire_.wait_all();
    });
    std::copy(data.begin(), data.end(), all.begin() + static_cast<int64_t>(n) * rank());
    for (size_t i = 0; i < n; ++i) {
      T value = all[i];
      for (size_t r = 1; r < static_cast<size_t>(size()); ++r) {
        const T other = all[r * n + i];
        value = op == Reduce::kSum   ? value + other
                : op == Reduce::kMax ? std::max(value, other)
                                     : std::min(value, other);
      }
      data[i] = value;
    }
  }

  // Runs one step of a call; a failure of the transport becomes this communicator's last word.
  template <typename Body>
  auto guarded(std::string_view name, uint64_t bytes, uint64_t number, const Body& body) -> decltype(body()) {
    const double started = monotonic_s();
    struct Clock {
      double& total;
      double started;
      ~Clock() { total += monotonic_s() - started; }
    } clock{busy_s_, started};
    try {
      return body();
    } catch (const PeerError& e) {
      recorder_.end(CallState::kFailed, e.peer());
      broken_ = PeerError(
          e.peer(),
          fmt::format("{} failed on {} in generation {} after {:.2f} s: {}",
                      number > 0  ? fmt::format("{} #{} of {} bytes", name, number, bytes)
                      : bytes > 0 ? fmt::format("{} of {} bytes", name, bytes)
                                  : std::string(name),
                      describe(transport_->peer(rank())), generation_, monotonic_s() - started, e.what()),
          e.ended());
      // Whoever waits for this rank now learns it at once instead of at its own deadline.
      transport_->abort(broken_->what());
      throw *broken_;
    }
  }

  template <typename Body>
  void run(std::string_view name, uint64_t bytes, double timeout_s, const Body& body, int64_t pair = -1) {
    if (broken_) throw *broken_;
    // Point-to-point calls are not seen by all ranks: they do not count towards the number that must agree.
    if (pair < 0) ++sequence_;
    wire_.open(*transport_, recorder_, salt_ << 32 | (pair < 0 ? sequence_ : 0),
               monotonic_s() + (timeout_s > 0 ? timeout_s : timeout_s_));
    recorder_.begin(sequence_, name, bytes);
    struct Close {
      Wire& wire;
      ~Close() { wire.close(); }
    } close{wire_};
    guarded(name, bytes, sequence_, body);
    recorder_.end(CallState::kDone);
  }

  static constexpr uint64_t kPosted = uint64_t{1} << 63;
  std::unique_ptr<Transport> transport_;
  uint64_t generation_;
  double timeout_s_;
  std::unique_ptr<FlightRecorder> own_;
  FlightRecorder& recorder_;
  uint64_t salt_;  // 1 .. 127; 0: the whole group
  std::vector<uint64_t> posted_sends_, posted_receives_;
  Wire wire_;
  uint64_t sequence_ = 0;
  double busy_s_ = 0;
  std::optional<PeerError> broken_;
};

}  // namespace

void Communicator::all_reduce(std::span<float> data, double timeout_s) {
  float* const partial = data.data();
  const auto spans = even_spans(size(), size());
  tree_all_reduce({&partial, 1}, data.size(), spans, data.data(), {}, timeout_s);
}

void Communicator::reduce_scatter(std::span<float> data, std::span<float> out, double timeout_s) {
  const size_t expected = shard_of(data.size(), size(), rank()).size();
  if (out.size() != expected)
    fail(ErrorKind::kUsage, "reduce_scatter: expected {} output elements on rank {}, found {}", expected,
         rank(), out.size());
  float* const partial = data.data();
  const auto spans = even_spans(size(), size());
  tree_reduce_scatter({&partial, 1}, data.size(), spans, out.data(), {}, timeout_s);
}

std::unique_ptr<Communicator> make_communicator(std::unique_ptr<Transport> transport, uint64_t generation,
                                                double timeout_s, FlightRecorder* recorder) {
  return std::make_unique<TransportCommunicator>(std::make_unique<CountedTransport>(std::move(transport)),
                                                 generation, timeout_s, recorder);
}

std::vector<LeafSpan> even_spans(int workers, int virtual_ranks) {
  std::vector<LeafSpan> out;
  for (int w = 0; w < workers; ++w) out.push_back(leaves_of(w, workers, virtual_ranks));
  return out;
}

}  // namespace stoker::comm
