// base/threads.h
// Data parallelism inside one process, on the OpenMP team that oneDNN also uses: two thread pools would fight
// for cores.
//   parallel_for(n, body)      body(i) for every i in [0,n), handed out in order as threads become free
//   parallel_tasks(n, body)    the same, body(i, thread): thread < compute_threads() picks the caller's
//   scratch memory parallel_ranges(n, body)   body(begin, end, thread): [0,n) cut into compute_threads()
//   equal ranges; what thread t
//                              does depends only on (n, compute_threads())
//   bound_spinning(argv)       first thing of main: how long a thread that waits for the others keeps its core
// An exception thrown by body is rethrown in the caller (the first one, by index of thread).
#pragma once
#include <cstdint>
#include <functional>

namespace stoker {

int compute_threads();
void set_compute_threads(int threads);  // >= 1; also sets OpenMP's number for the calling thread
void parallel_for(int64_t n, const std::function<void(int64_t)>& body);
void parallel_tasks(int64_t n, const std::function<void(int64_t i, int thread)>& body);
void parallel_ranges(int64_t n, const std::function<void(int64_t begin, int64_t end, int thread)>& body);

// A thread of the team that has nothing to do spins before it sleeps; OpenMP's default of milliseconds starves a machine that has other
// work (docs/decisions/033-bounded-spinning.md). The bound is read when OpenMP is loaded: unless GOMP_SPINCOUNT or OMP_WAIT_POLICY say it,
// the program is started anew with it, same process, same arguments; where that cannot be done it goes on as it is.
void bound_spinning(char** argv);

}  // namespace stoker
