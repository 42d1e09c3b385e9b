// plan/failures.h
// What breaks, how often, what it costs, and how often to save: from failure logs of published runs to goodput
// and the time at which a run is finished with a given certainty.
// Model     Failures of a job are a Poisson process: per accelerator, per node and per link rates from the logs
//           in catalog/failure_logs.csv, times one log-normal factor per run, because clusters differ by more
//           than chance (measured rates spread 2.3 to 14 per 1,000 node-days). Rates add over components and
//           scale with the count of what fails; logs of several scales do not contradict that beyond the
//           factor's spread.
// Loss      A failure costs detection, then restart or node replacement, then loading, then the work since the
//           last checkpoint (RecoveryMode says which of these apply).
// Numbers   float64. The simulation's draws are a pure function of (seed, trial, draw): same answer on any
//           machine.
// Errors    Usage: a rate, cost or interval that is negative or not finite
// Source    Young, CACM 17(9), 1974; Daly, FGCS 22(3), 2006. Logs: named per row in the catalog file.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "plan/band.h"

namespace stoker::plan {

struct ComponentRate {
  std::string name;         // accelerator, host, network, software, maintenance
  double per_day = 0;       // per unit of this component
  double units = 0;         // how many the job has
  bool needs_swap = false;  // the node is taken out; otherwise a restart is enough
  std::string source;
  double job_per_day() const { return per_day * units; }
};

// Observed interruption rates of whole clusters, per node-day of 8 accelerators, one per log.
struct ClusterRate {
  std::string run;
  double per_node_day = 0;
  double events = 0;
  std::string source;
};

struct FailureCatalog {
  std::vector<ComponentRate> components;  // units = 1; from the log that itemises its causes
  std::vector<ClusterRate> clusters;
  // Of the factor that multiplies the itemised log's rates: exp(mean +- sigma) covers about 68 % of clusters.
  double log_factor_mean = 0, log_factor_sigma = 0;
};

FailureCatalog read_failure_catalog(std::string_view csv_name, std::string_view csv);
FailureCatalog failure_catalog();  // the built-in file

struct JobScale {
  int64_t accelerators = 1;
  int64_t accelerators_per_node = 8;
  int64_t nodes() const { return (accelerators + accelerators_per_node - 1) / accelerators_per_node; }
};

// Component rates at this scale. Consumer and CPU machines use the same rates: no log of them was found.
std::vector<ComponentRate> job_rates(const FailureCatalog& catalog, const JobScale& scale);
double total_per_second(const std::vector<ComponentRate>& rates);

enum class RecoveryMode {
  kStorage,     // everyone restarts and reads the last checkpoint from storage
  kHotSpare,    // same, but a spare node stands by: no wait for a replacement
  kPeerMemory,  // survivors keep their memory, replicas rebuild the lost part: at most one step is lost
  kElastic      // as kPeerMemory, and the job goes on without the lost node until it is back
};
std::string_view to_string(RecoveryMode mode);

struct Recovery {
  RecoveryMode mode = RecoveryMode::kStorage;
  double detect_s = 600;     // fault to "we know which"
  double restart_s = 300;    // launch, connect, warm up
  double load_s = 60;        // read the checkpoint
  double replace_s = 1800;   // until a replacement node is in (kStorage) or repaired (kElastic)
  double checkpoint_s = 60;  // the time for which training stands still per checkpoint
  double step_s = 10;        // lost at most per failure in kPeerMemory and kElastic
  std::string source;
};
void validate(const Recovery& recovery);

// Mean time for which a failure stops training, without the lost work.
double mean_outage_s(const Recovery& recovery, const std::vector<ComponentRate>& rates);

struct Cadence {
  double young_s = 0;  // sqrt(2 C M)
  double daly_s = 0;   // Daly's series, C < 2M; M otherwise
  double exact_s =
      0;  // the minimum of expected_segment_s / interval, through Lambert's W; 0 when nothing fails
};
// Work seconds between checkpoints. rate_per_s: job failures; checkpoint_s > 0.
Cadence optimal_cadence(double rate_per_s, double checkpoint_s);
// Expected wall time to get one interval of work and its checkpoint done (Daly): exp(rate * outage) / rate *
// (exp(rate * (interval + checkpoint)) - 1). Failures can strike during outages too.
double expected_segment_s(double rate_per_s, double interval_s, double checkpoint_s, double outage_s);

struct GoodputInput {
  double work_s = 0;  // time to finish if nothing ever failed and nothing was saved
  std::vector<ComponentRate> rates;
  double log_factor_mean = 0, log_factor_sigma = 0;
  Recovery recovery;
  double interval_s = 0;  // 0: optimal
  JobScale scale;
  int trials = 2000;
  uint64_t seed = 1;
  double preemptions_per_s = 0;  // of the job: spot and marketplace machines; recovered like a node swap
};

struct GoodputResult {
  double interval_s = 0;
  Cadence cadence;
  double mean_goodput = 0;  // work_s / wall
  Band<double> goodput;     // 10th, 50th, 90th percentile
  double wall_mean_s = 0, wall_p50_s = 0, wall_p90_s = 0, wall_p99_s = 0;
  Band<double> failures;                                              // 10th percentile, mean, 90th
  std::vector<std::pair<std::string, double>> failures_by_component;  // means
  // Where the mean wall time went, beyond work.
  double checkpoint_s = 0, lost_work_s = 0, outage_s = 0, degraded_s = 0;
  double mtbf_s = 0;  // of the job at the mean rate; infinite when nothing fails
};
// Cost: trials x failures draws; above about 5 million, trials are reduced (never below 100).
GoodputResult simulate_goodput(const GoodputInput& input);

}  // namespace stoker::plan
