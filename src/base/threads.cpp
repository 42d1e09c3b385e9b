#include "base/threads.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <vector>

#include "base/error.h"

namespace stoker {
namespace {
std::atomic<int> g_threads{0};
}

int compute_threads() {
  const int set = g_threads.load(std::memory_order_relaxed);
  return set ? set : omp_get_max_threads();
}

void set_compute_threads(int threads) {
  STOKER_CHECK(threads >= 1);
  g_threads = threads;
  omp_set_num_threads(threads);
}

void parallel_for(int64_t n, const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next{0};
  std::vector<std::exception_ptr> failures(static_cast<size_t>(compute_threads()));
#pragma omp parallel num_threads(compute_threads())
  {
    try {
      for (int64_t i; (i = next.fetch_add(1)) < n;) body(i);
    } catch (...) {
      failures[static_cast<size_t>(omp_get_thread_num())] = std::current_exception();
    }
  }
  for (const auto& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

void parallel_ranges(int64_t n, const std::function<void(int64_t, int64_t, int)>& body) {
  const int threads = compute_threads();
  std::vector<std::exception_ptr> failures(static_cast<size_t>(threads));
#pragma omp parallel num_threads(threads)
  {
    const int t = omp_get_thread_num();
    const int64_t begin = n * t / threads, end = n * (t + 1) / threads;
    try {
      if (begin < end) body(begin, end, t);
    } catch (...) {
      failures[static_cast<size_t>(t)] = std::current_exception();
    }
  }
  for (const auto& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace stoker
