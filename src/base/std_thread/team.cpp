#include "base/team.h"

#include <omp.h>

#include <thread>
#include <vector>

namespace stoker {
namespace {
thread_local bool inside_team = false;
}

// oneDNN still runs on OpenMP here, so its number stays the shared one.
int default_team_size() { return omp_get_max_threads(); }

void set_default_team_size(int threads) { omp_set_num_threads(threads); }

void run_team(int threads, const std::function<void(int)>& body) {
  if (inside_team || threads == 1) {
    for (int t = 0; t < threads; ++t) body(t);
    return;
  }
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) {
    others.emplace_back([&body, t] {
      inside_team = true;
      body(t);
    });
  }
  inside_team = true;
  body(0);
  inside_team = false;
  for (auto& thread : others) thread.join();
}

}  // namespace stoker
