#include "base/threads.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <cstdlib>
#include <exception>
#include <vector>

#include "base/error.h"
#include "base/team.h"

namespace stoker {
namespace {
std::atomic<int> g_threads{0};

// Runs body(t) for each thread of the team and rethrows the first failure, by index of thread.
void run_team_rethrowing(int threads, const std::function<void(int)>& body) {
  std::vector<std::exception_ptr> failures(static_cast<size_t>(threads));
  run_team(threads, [&](int t) {
    try {
      body(t);
    } catch (...) {
      failures[static_cast<size_t>(t)] = std::current_exception();
    }
  });
  for (const auto& failure : failures)
    if (failure) std::rethrow_exception(failure);
}
}  // namespace

int compute_threads() {
  const int set = g_threads.load(std::memory_order_relaxed);
  return set ? set : default_team_size();
}

void set_compute_threads(int threads) {
  STOKER_CHECK(threads >= 1);
  g_threads = threads;
  set_default_team_size(threads);
}

void parallel_for(int64_t n, const std::function<void(int64_t)>& body) {
  parallel_tasks(n, [&](int64_t i, int) { body(i); });
}

void parallel_tasks(int64_t n, const std::function<void(int64_t, int)>& body) {
  std::atomic<int64_t> next{0};
  run_team_rethrowing(compute_threads(), [&](int t) {
    for (int64_t i; (i = next.fetch_add(1)) < n;) body(i, t);
  });
}

void parallel_ranges(int64_t n, const std::function<void(int64_t, int64_t, int)>& body) {
  const int threads = compute_threads();
  run_team_rethrowing(threads, [&](int t) {
    const int64_t begin = n * t / threads, end = n * (t + 1) / threads;
    if (begin < end) body(begin, end, t);
  });
}

void bound_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  setenv("GOMP_SPINCOUNT", "30000", 1);
  std::array<char, PATH_MAX> path{};
  // The file's own path: by /proc/self/exe the process would be called "exe".
  if (readlink("/proc/self/exe", path.data(), path.size() - 1) > 0) execv(path.data(), argv);
}

}  // namespace stoker
