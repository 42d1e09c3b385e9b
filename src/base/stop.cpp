#include "base/stop.h"

#include <unistd.h>
#include <atomic>
#include <csignal>

namespace stoker {
namespace {
std::atomic<bool> g_stop{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // or it could not be touched in a signal handler

void on_signal(int signal) {
  if (g_stop.exchange(true) && signal == SIGINT) _exit(130);
}
}  // namespace

void install_stop_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}
bool stop_requested() { return g_stop.load(std::memory_order_relaxed); }
void request_stop() { g_stop = true; }
void clear_stop() { g_stop = false; }

}  // namespace stoker
