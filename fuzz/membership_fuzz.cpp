// What a coordinator hears from workers that hold the token but are of another version, confused or hostile, in any order; and the state
// file that it finds when it comes back. Whatever comes, the status stays JSON and the state can be read again.
#include <nlohmann/json.hpp>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "elastic/membership.h"

namespace {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ >= size_; }
  uint8_t byte() { return empty() ? 0 : data_[at_++]; }
  std::string text() {  // as protobuf lets strings through: ASCII here, other UTF-8 is no different
    std::string out;
    for (size_t n = byte() % 24; n-- > 0;) out += static_cast<char>(byte() & 0x7f);
    return out;
  }
  std::string worker() { return "w" + std::to_string(byte() % 5); }
  int64_t number() {
    const auto b = byte();
    return b < 200 ? b : b < 228 ? -int64_t{b} : int64_t{1} << (b - 192);
  }

  stoker::elastic::Standing standing() {
    stoker::elastic::Standing out{static_cast<int>(number()), number(), static_cast<double>(number()), {}};
    for (size_t n = byte() % 6; n-- > 0;) out.sent.push_back(static_cast<uint64_t>(number()));
    return out;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

class HandClock final : public stoker::Clock {
 public:
  double now_s() const override { return now; }
  double unix_s() const override { return 1e9 + now; }
  void sleep_s(double seconds) override { now += seconds; }
  double now = 0;
};

void check(const stoker::elastic::Membership& m) {
  if (!nlohmann::json::accept(m.status_json())) std::abort();
  for (const auto& e : m.events_after(0))
    if (!nlohmann::json::accept(e.json())) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker::elastic;
  HandClock clock;
  MembershipConfig config;
  config.target = 3;
  Membership m(config, clock);
  Input in(data, size);
  if (in.byte() % 8 == 0) {
    try {
      m.load(std::string(reinterpret_cast<const char*>(data) + 1, size - std::min<size_t>(1, size)));
    } catch (const stoker::Error& e) {
      if (e.kind() != stoker::ErrorKind::kData) throw;
      return 0;
    }
    in = Input(data + size / 2, size - size / 2);
  }
  while (!in.empty()) {
    const uint8_t what = in.byte() % 12;
    const WorkerInfo who{in.worker(), "host", in.number(), "127.0.0.1", in.text()};
    const auto generation = static_cast<uint64_t>(in.number());
    const Pulse pulse{in.number(),
                      in.text(),
                      static_cast<double>(in.number()),
                      in.text(),
                      static_cast<double>(in.number()),
                      static_cast<uint64_t>(in.number()),
                      in.text()};
    std::string why;
    try {
      if (what == 0) m.heartbeat(who, generation, pulse);
      else if (what == 1 || what == 2) m.arrive(who, generation, pulse, in.text(), in.standing());
      else if (what == 3) (void)m.gate(in.worker());
      else if (what == 4) m.withdraw(in.worker());
      else if (what == 5) m.accuse(who.worker, generation, in.worker(), in.text(), in.byte() % 2 == 0);
      else if (what == 6) m.ended(in.worker(), static_cast<int>(in.number()), static_cast<int>(in.number()));
      else if (what == 7) m.leave(who.worker, in.byte() % 2 == 0);
      else if (what == 8) (void)m.may_commit(who.worker, generation, &why);
      else if (what == 9) m.scale(static_cast<int>(in.number()));
      else if (what == 10) m.note(in.text(), who.worker, in.text());
      else clock.now += in.byte() * 0.1;
      m.tick();
    } catch (const stoker::Error& e) {
      if (e.kind() != stoker::ErrorKind::kUsage) throw;
    }
  }
  check(m);
  Membership again(config, clock);
  again.load(m.save());
  check(again);
  return 0;
}
