#include "io/retry.h"

#include <algorithm>

#include "base/hash.h"
#include "base/progress.h"
#include "base/stop.h"

namespace stoker::io {
namespace {
void say(const RetryPolicy& policy, const std::string& message) {
  if (policy.say) policy.say(message);
  else fmt::print(stderr, "{}\n", message);
}
}  // namespace

int retry_storage(const RetryPolicy& policy, Clock& clock, const std::function<void()>& action) {
  const double began = clock.now_s();
  double wait = policy.first_wait_s;
  bool said = false;
  for (int failures = 0;; ++failures) {
    try {
      action();
      if (said) say(policy, fmt::format("storage is back after {}", human_duration(clock.now_s() - began)));
      return failures;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kStorage && e.kind() != ErrorKind::kPeer) throw;
      const double waited = clock.now_s() - began;
      if (waited >= policy.give_up_after_s)
        fail(ErrorKind::kStorage, "{} (tried {} times in {})", e.what(), failures + 1,
             human_duration(waited));
      if (!said && waited + wait >= policy.say_after_s) {
        say(policy, fmt::format("waiting for storage, trying again for {}: {}",
                                human_duration(policy.give_up_after_s), e.what()));
        said = true;
      }
    }
    const uint64_t key[2] = {policy.salt, static_cast<uint64_t>(failures)};
    const double until =
        clock.now_s() + wait * (1 - 0.5 * static_cast<double>(hash64(key, sizeof key) >> 11) * 0x1p-53);
    while (clock.now_s() < until) {
      if (stop_requested() || (policy.should_stop && policy.should_stop()))
        fail(ErrorKind::kCancelled, "stopped while waiting for storage");
      clock.sleep_s(std::min(0.05, until - clock.now_s()));
    }
    wait = std::min(policy.longest_wait_s, wait * 2);
  }
}

}  // namespace stoker::io
