#include "base/clock.h"

#include <thread>

namespace stoker {
namespace {
class SystemClock final : public Clock {
 public:
  double now_s() const override { return monotonic_s(); }
  double unix_s() const override {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  }
  void sleep_s(double seconds) override {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
};
}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

}  // namespace stoker
