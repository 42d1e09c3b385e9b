// base/clock.h
// Time as a seam: whoever waits or measures takes a Clock, so that tests own time.
#pragma once
#include <chrono>
#include <cstdint>

namespace stoker {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual double now_s() const = 0;   // monotonic, seconds since an arbitrary origin
  virtual double unix_s() const = 0;  // wall clock, seconds since 1970
  virtual void sleep_s(double seconds) = 0;
};

Clock& system_clock();

// Monotonic seconds, for measuring inside one process.
inline double monotonic_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace stoker
