// cluster/place.h
// How a worker finds out where it is, from what its starter put into the environment. In this order:
//   stoker launch   STOKER_COORDINATOR, STOKER_WORKER, STOKER_TOKEN or STOKER_TOKEN_FILE, STOKER_RUN_DIR,
//                   STOKER_LOCAL_RANK, STOKER_LOCAL_WORKERS
//   Slurm step      SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_JOB_ID, SLURM_STEP_ID, SLURMD_NODENAME, SLURM_STEP_NODELIST,
//                   SLURM_RESTART_COUNT (absent on the first run); PMIX_RANK must agree when it is there
//   Kubernetes      JOB_COMPLETION_INDEX with STOKER_COORDINATOR and STOKER_WORKERS
// Shared memory and run files are named by run and worker, where a worker is job.step.restart.rank on its Slurm node:
// several slurmd on one machine share a hostname, and a requeued job keeps its id while its zombies still run.
// Pure: the environment is passed in. Errors: Usage when the variables contradict each other.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::cluster {

enum class Starter { kNone, kLaunch, kSlurm, kKubernetes };

struct Place {
  Starter starter = Starter::kNone;
  std::string worker;       // unique in the run, also across restarts
  std::string coordinator;  // HOST:PORT; empty: rank 0 starts one and writes RUN/coordinator
  std::string token, token_file, run_dir;
  std::string node;
  int rank = 0, size = 1;  // as started; the coordinator gives the real ranks
  int local_rank = 0;
  int local_workers = 1;  // started on this host, as far as the starter said
  int restart = 0;
};

using Environment = std::function<std::optional<std::string>(const std::string&)>;
std::optional<std::string> process_environment(const std::string& name);
Place find_place(const Environment& environment);

// "n[1-3,7],m05" -> n1 n2 n3 n7 m05, zeros kept. Usage on anything else; at most 100,000 names.
std::vector<std::string> expand_node_list(std::string_view text);

}  // namespace stoker::cluster
