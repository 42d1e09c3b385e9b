// cli/chaos_experiment.h
// One real run that is disturbed on purpose, then the same run undisturbed by a single worker, compared byte for byte. A layout with
// tensor or context parallelism is compared with the fewest workers that have it; a pipeline is compared with none.
//   The disturbed run goes on until all faults have been inflicted, is then asked to stop, and the undisturbed one is trained to
//   the same step: a recipe of any length will do.
//   Kinds         kill stop half-open drop delay partition disk-full flip-weights flip-gradients flip-shard flip-checkpoint
//                 slow coordinator (docs/failure.md says what each does)
//   Files         RUN/disturbed, RUN/undisturbed, RUN/warm-up: run directories; RUN is emptied first
// Errors          Usage: a recipe that does not train, fewer virtual ranks than workers, an unknown kind. Internal: the disturbed
//                 run ended by itself
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace stoker::cli {

struct ChaosOptions {
  std::string recipe, run = "chaos";
  std::vector<std::string> set, kinds;  // no kinds: all that are possible here
  int faults = 20, workers = 4, zero_stage = 0;
  uint64_t seed = 1;
  std::function<void(const std::string&)> say;
};

struct FaultRecord {
  std::string kind, victim;
  double named_s = -1, recovery_s = -1;  // from the fault; -1: never
  std::string said;                      // what the culprit was named by
  uint64_t batches_again = 0;            // finished batches that had to be done again
  bool read_checkpoint = false;
};

struct ChaosVerdict {
  std::vector<FaultRecord> faults;
  std::vector<std::string> left_out;  // kinds that are not possible here, with the reason
  int inflicted_again = 0;            // since the machine stood still in the middle of one
  bool identical = false;
  int64_t steps = 0;
  uint64_t lost = 0, repeated = 0, batches = 0;
  double disturbed_s = 0, undisturbed_s = 0;
  std::string undisturbed, disturbed;  // hashes of the weights
  int64_t unnamed() const;
  double recovery_median(const std::string& kind) const;  // empty: of all kinds
  int64_t checkpoints_read() const;                       // by faults that must not need one
  uint64_t most_batches_again() const;                    // likewise
  bool passed(int wanted) const;
};

const std::vector<std::string>& chaos_kinds();
ChaosVerdict run_chaos(const ChaosOptions& options);

}  // namespace stoker::cli
