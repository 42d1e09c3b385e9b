#include "base/team.h"

#include <omp.h>

namespace stoker {

int default_team_size() { return omp_get_max_threads(); }

void set_default_team_size(int threads) { omp_set_num_threads(threads); }

void run_team(int threads, const std::function<void(int)>& body) {
#pragma omp parallel num_threads(threads)
  {
    // OpenMP may give fewer threads than asked for (nested teams, thread limits): they share the work.
    for (int t = omp_get_thread_num(); t < threads; t += omp_get_num_threads()) body(t);
  }
}

}  // namespace stoker
