// io/retry.h
// Does something again and again while storage is in trouble (Error of kind Storage or Peer), with exponential backoff; any other
// error passes at once. Says so once it has waited for a while, and when it is over.
// Waits         first_wait_s, doubled up to longest_wait_s, each shortened by up to half by a hash of (salt, attempt), so that many
//               workers do not come back at the same moment
// Errors        the last one, when give_up_after_s have passed. Cancelled: stop_requested(), or should_stop() says so
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "base/clock.h"
#include "base/error.h"

namespace stoker::io {

struct RetryPolicy {
  double first_wait_s = 0.2;
  double longest_wait_s = 15;
  double give_up_after_s = 3600;
  double say_after_s = 2;
  uint64_t salt = 0;
  std::function<void(const std::string&)> say;  // default: standard error
  std::function<bool()> should_stop;
};

// Returns how often it failed before it worked.
int retry_storage(const RetryPolicy& policy, Clock& clock, const std::function<void()>& action);

}  // namespace stoker::io
