// base/team.h
// The one place where compute threads are started; everything else goes through base/threads.h.
//   run_team(n, body)   body(t) exactly once for every t in [0,n), on up to n threads at a time; returns when
//                       all are done. Inside another team it runs on the calling thread: no oversubscription.
// Two implementations, chosen by the build (STOKER_TEAM): openmp/ shares its threads with oneDNN;
// std_thread/ is for ThreadSanitizer, which cannot see the barriers of libgomp.
// Errors        body must not throw (base/threads.h catches and carries over)
#pragma once
#include <functional>

namespace stoker {

int default_team_size();  // the processors this process may use, or OMP_NUM_THREADS
void set_default_team_size(int threads);
void run_team(int threads, const std::function<void(int thread)>& body);

}  // namespace stoker
