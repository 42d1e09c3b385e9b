// cli/worker_team.h
// Wires a training process to its run: where it is (cluster/place.h), whom it speaks to (elastic), with whom it computes
// (train/team.h). In a Slurm step rank 0 also starts the coordinator, and the others find it in the run directory, which must be on
// storage that all nodes share.
#pragma once
#include <memory>
#include <string>

#include "cluster/processes.h"
#include "train/team.h"

namespace stoker::cli {

struct WorkerTeam {
  std::unique_ptr<cluster::Processes> coordinator;  // of rank 0 in a Slurm step
  std::unique_ptr<train::Team> team;                // null: this process is alone
};

struct WorkerTeamOptions {
  std::string run_dir;
  int virtual_ranks = 1;
  std::string transport = "auto";
  double timeout_s = 8;
};

WorkerTeam make_worker_team(const WorkerTeamOptions& options);

}  // namespace stoker::cli
