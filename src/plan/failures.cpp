#include "plan/failures.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>

#include "base/error.h"
#include "base/random.h"
#include "base/stop.h"
#include "plan/catalog_files.h"
#include "plan/csv.h"

namespace stoker::plan {
namespace {

constexpr double kDay = 86400;
constexpr double kMostEvents = 5e6;  // simulated failures of one answer: about a third of a second
constexpr double kMostYears = 1000;  // of work: nobody means more
constexpr double kNeverEnds = 20;    // times the work: no run that is this slow is meant

struct Log {
  double accelerators = 0, per_node = 8, days = 0, events = 0;
  bool itemised = false;
  std::string source;
  std::map<std::string, double> by_component;
  double nodes8() const { return accelerators / 8; }
};

bool swaps_node(const std::string& component) { return component == "accelerator" || component == "host"; }

// What one unit of each component is, given a cluster.
double component_units(const std::string& component, double accelerators, double nodes) {
  return component == "accelerator" || component == "network" ? accelerators : nodes;
}

// W0 and W-1 have one real value each on (-1/e, 0); this is the one below -1 or above it, by Halley's method.
double lambert_w0(double z) {
  // Near the branch point the series in p = sqrt(2(ez+1)) is accurate and a start elsewhere.
  const double p = std::sqrt(std::max(0.0, 2 * (std::numbers::e * z + 1)));
  double w = -1 + p - p * p / 3 + 11 * p * p * p / 72;
  if (p < 1e-4) return w;
  for (int i = 0; i < 50; ++i) {
    const double e = std::exp(w), f = w * e - z;
    const double step = f / (e * (w + 1) - (w + 2) * f / (2 * w + 2));
    w -= step;
    if (std::abs(step) <= 1e-15 * std::abs(w)) break;
  }
  return w;
}

void check_number(double value, const char* name) {
  if (!std::isfinite(value) || value < 0)
    fail(ErrorKind::kUsage, "{} = {}: expected a finite number that is not negative", name, value);
}

}  // namespace

FailureCatalog read_failure_catalog(std::string_view csv_name, std::string_view csv) {
  const CsvTable table{std::string(csv_name), csv};
  for (const char* column :
       {"run", "accelerators", "accelerators_per_node", "days", "component", "count", "source"})
    table.require_column(column);
  std::map<std::string, Log> logs;
  for (size_t row = 0; row < table.rows(); ++row) {
    Log& log = logs[std::string(table.text(row, "run"))];
    log.accelerators = table.required_number(row, "accelerators");
    log.per_node = table.required_number(row, "accelerators_per_node");
    log.days = table.required_number(row, "days");
    const double count = table.required_number(row, "count");
    if (log.accelerators <= 0 || log.per_node <= 0 || log.days <= 0 || count < 0)
      fail(ErrorKind::kData,
           "{}: accelerators, accelerators_per_node and days must be positive, count not negative",
           table.where(row));
    log.events += count;
    log.source = table.text(row, "source");
    const std::string component{table.text(row, "component")};
    if (component != "total") {
      log.itemised = true;
      log.by_component[component] += count;
    }
  }
  FailureCatalog catalog;
  const Log* itemised = nullptr;
  for (const auto& [run, log] : logs) {
    catalog.clusters.push_back({run, log.events / (log.nodes8() * log.days), log.events, log.source});
    if (log.itemised && (!itemised || log.events > itemised->events)) itemised = &log;
  }
  if (!itemised) fail(ErrorKind::kData, "{}: expected at least one log that names components", csv_name);
  for (const auto& [component, count] : itemised->by_component)
    catalog.components.push_back({component,
                                  count / (component_units(component, itemised->accelerators,
                                                           itemised->accelerators / itemised->per_node) *
                                           itemised->days),
                                  1, swaps_node(component), itemised->source});
  // Spread between clusters: logs of the observed rates against the itemised one.
  const double reference = itemised->events / (itemised->nodes8() * itemised->days);
  double sum = 0, squares = 0;
  for (const ClusterRate& c : catalog.clusters) sum += std::log(c.per_node_day / reference);
  catalog.log_factor_mean = sum / static_cast<double>(catalog.clusters.size());
  for (const ClusterRate& c : catalog.clusters)
    squares += std::pow(std::log(c.per_node_day / reference) - catalog.log_factor_mean, 2);
  if (catalog.clusters.size() > 1)
    catalog.log_factor_sigma = std::sqrt(squares / static_cast<double>(catalog.clusters.size() - 1));
  return catalog;
}

FailureCatalog failure_catalog() {
  return read_failure_catalog("failure_logs.csv", catalog_file("failure_logs.csv"));
}

std::vector<ComponentRate> job_rates(const FailureCatalog& catalog, const JobScale& scale) {
  if (scale.accelerators < 1 || scale.accelerators_per_node < 1)
    fail(ErrorKind::kUsage, "accelerators = {}, per node = {}: expected at least 1 of each",
         scale.accelerators, scale.accelerators_per_node);
  std::vector<ComponentRate> rates = catalog.components;
  for (ComponentRate& rate : rates)
    rate.units = component_units(rate.name, static_cast<double>(scale.accelerators),
                                 static_cast<double>(scale.nodes()));
  // One machine has no fabric between nodes to lose.
  if (scale.nodes() == 1) std::erase_if(rates, [](const ComponentRate& r) { return r.name == "network"; });
  return rates;
}

double total_per_second(const std::vector<ComponentRate>& rates) {
  double sum = 0;
  for (const ComponentRate& r : rates) sum += r.job_per_day();
  return sum / kDay;
}

std::string_view to_string(RecoveryMode mode) {
  switch (mode) {
    case RecoveryMode::kStorage:
      return "storage";
    case RecoveryMode::kHotSpare:
      return "hot-spare";
    case RecoveryMode::kPeerMemory:
      return "peer-memory";
    case RecoveryMode::kElastic:
      return "elastic";
  }
  return "?";
}

void validate(const Recovery& r) {
  check_number(r.detect_s, "detect_s");
  check_number(r.restart_s, "restart_s");
  check_number(r.load_s, "load_s");
  check_number(r.replace_s, "replace_s");
  check_number(r.checkpoint_s, "checkpoint_s");
  check_number(r.step_s, "step_s");
}

namespace {
double outage_s(const Recovery& r, bool swap) {
  const double base = r.detect_s + r.restart_s;
  switch (r.mode) {
    case RecoveryMode::kStorage:
      return base + r.load_s + (swap ? r.replace_s : 0);
    case RecoveryMode::kHotSpare:
      return base + r.load_s;
    case RecoveryMode::kPeerMemory:
      return base + (swap ? r.replace_s : 0);
    case RecoveryMode::kElastic:
      return base;
  }
  return base;
}
}  // namespace

double mean_outage_s(const Recovery& recovery, const std::vector<ComponentRate>& rates) {
  double weighted = 0, total = 0;
  for (const ComponentRate& r : rates) {
    weighted += r.job_per_day() * outage_s(recovery, r.needs_swap);
    total += r.job_per_day();
  }
  return total > 0 ? weighted / total : outage_s(recovery, false);
}

Cadence optimal_cadence(double rate_per_s, double checkpoint_s) {
  check_number(rate_per_s, "failure rate");
  check_number(checkpoint_s, "checkpoint cost");
  Cadence c;
  if (rate_per_s == 0 || checkpoint_s == 0) return c;
  const double m = 1 / rate_per_s;
  c.young_s = std::sqrt(2 * checkpoint_s * m);
  const double x = checkpoint_s / (2 * m);
  c.daly_s = x < 1 ? c.young_s * (1 + std::sqrt(x) / 3 + x / 9) - checkpoint_s : m;
  // d/dt [(exp(rate (t + C)) - 1) / t] = 0  <=>  (rate t - 1) exp(rate t - 1) = -exp(-rate C - 1)
  c.exact_s = (1 + lambert_w0(-std::exp(-rate_per_s * checkpoint_s - 1))) / rate_per_s;
  return c;
}

double expected_segment_s(double rate_per_s, double interval_s, double checkpoint_s, double outage) {
  if (rate_per_s == 0) return interval_s + checkpoint_s;
  return std::exp(rate_per_s * outage) / rate_per_s * std::expm1(rate_per_s * (interval_s + checkpoint_s));
}

namespace {

// Draws of one trial, in order: a pure function of (seed, trial, how many were drawn).
class Draws {
 public:
  Draws(uint64_t seed, uint64_t trial) : key_{seed, trial} {}
  double uniform() { return (static_cast<double>(random_u64(key_, next_++) >> 11) + 0.5) * 0x1p-53; }
  double exponential(double rate) { return -std::log(uniform()) / rate; }
  double normal() {
    const double r = std::sqrt(-2 * std::log(uniform()));
    return r * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  PhiloxKey key_;
  uint64_t next_ = 0;
};

struct Trial {
  double wall = 0, checkpoints = 0, lost = 0, outage = 0, degraded = 0, failures = 0;
};

struct Plan {
  const GoodputInput& in;
  double base_rate = 0;  // without preemptions and factor
  double interval = 0;
  bool keeps_work = false;  // at most a step is lost
  std::vector<double>& by_component;

  Trial run(uint64_t index) const {
    Draws draws(in.seed, index);
    const double factor = std::exp(in.log_factor_mean + in.log_factor_sigma * draws.normal());
    const double rate = base_rate * factor + in.preemptions_per_s;
    const Recovery& r = in.recovery;
    const double cycle = interval + r.checkpoint_s;
    Trial t;
    double done = 0;  // saved work
    while (done < in.work_s) {
      const double left = in.work_s - done;
      // The last stretch needs no checkpoint: the run is over.
      const double saves = std::max(0.0, std::ceil(left / interval) - 1);
      const double needed = left + saves * r.checkpoint_s;
      const double until = rate > 0 ? draws.exponential(rate) : std::numeric_limits<double>::infinity();
      if (until >= needed) {
        t.wall += needed;
        t.checkpoints += saves * r.checkpoint_s;
        break;
      }
      const double segments = std::floor(until / cycle);
      const double in_segment = until - segments * cycle;
      double kept = segments * interval, lost_work = std::min(in_segment, interval),
             stopped = segments * r.checkpoint_s + std::max(0.0, in_segment - interval);
      if (keeps_work) {
        const double lost_now = std::min(lost_work, r.step_s * draws.uniform());
        kept += lost_work - lost_now;
        lost_work = lost_now;
      }
      t.wall += until;
      t.lost += lost_work;
      t.checkpoints += stopped;
      done = std::min(in.work_s, done + kept);
      // The outage, which further failures start anew.
      for (;;) {
        const bool swap = attribute(draws, factor, rate);
        ++t.failures;
        const double down = outage_s(r, swap);
        if (r.mode == RecoveryMode::kElastic && swap) {
          // One node's share of the work is missing until it is back.
          const double slow = r.replace_s / static_cast<double>(in.scale.nodes());
          t.wall += slow;
          t.degraded += slow;
        }
        const double again = draws.exponential(rate);
        if (again >= down) {
          t.wall += down;
          t.outage += down;
          break;
        }
        t.wall += again;
        t.outage += again;
        if (t.wall > 2 * kNeverEnds * in.work_s + 1e7) return t;  // an unlucky cluster: at least this long
      }
      if (t.wall > 2 * kNeverEnds * in.work_s + 1e7) return t;
    }
    return t;
  }

  // Which component failed; whether its node has to be replaced.
  bool attribute(Draws& draws, double factor, double rate) const {
    double pick = draws.uniform() * rate;
    for (size_t i = 0; i < in.rates.size(); ++i) {
      const double share = in.rates[i].job_per_day() / kDay * factor;
      if (pick < share) {
        by_component[i] += 1;
        return in.rates[i].needs_swap;
      }
      pick -= share;
    }
    by_component.back() += 1;  // preempted
    return true;
  }
};

double nearest_rank_quantile(std::vector<double>& values, double q) {
  const auto at = static_cast<ptrdiff_t>(std::ceil(q * static_cast<double>(values.size())) - 1);
  std::nth_element(values.begin(), values.begin() + std::max<ptrdiff_t>(at, 0), values.end());
  return values[static_cast<size_t>(std::max<ptrdiff_t>(at, 0))];
}

}  // namespace

GoodputResult simulate_goodput(const GoodputInput& in) {
  check_number(in.work_s, "work_s");
  check_number(in.interval_s, "checkpoint interval");
  check_number(in.preemptions_per_s, "preemptions");
  validate(in.recovery);
  if (in.trials < 1) fail(ErrorKind::kUsage, "trials = {}: expected at least 1", in.trials);
  GoodputResult out;
  const double base = total_per_second(in.rates);
  const double mean_factor = std::exp(in.log_factor_mean + in.log_factor_sigma * in.log_factor_sigma / 2);
  const double typical = base * std::exp(in.log_factor_mean) + in.preemptions_per_s;
  out.cadence = optimal_cadence(typical, in.recovery.checkpoint_s);
  out.interval_s = in.interval_s > 0 ? in.interval_s : out.cadence.exact_s;
  // Free checkpoints, or no failures: once a step, or never.
  if (out.interval_s <= 0)
    out.interval_s = typical > 0 ? std::max(in.recovery.step_s, 1e-3) : std::max(in.work_s, 1.0);
  const double mean_rate = base * mean_factor + in.preemptions_per_s;
  out.mtbf_s = mean_rate > 0 ? 1 / mean_rate : std::numeric_limits<double>::infinity();

  std::vector<double> by_component(in.rates.size() + 1);
  const Plan plan{in, base, out.interval_s,
                  in.recovery.mode == RecoveryMode::kPeerMemory || in.recovery.mode == RecoveryMode::kElastic,
                  by_component};
  const auto never_ends = [&]() {
    fail(ErrorKind::kUsage,
         "the run never ends: it fails every {:.0f} s on average and is then down for {:.0f} s; between "
         "failures it needs "
         "{:.0f} s of work and {:.0f} s of checkpoint. Use fewer machines, faster recovery or cheaper "
         "checkpoints.",
         out.mtbf_s, mean_outage_s(in.recovery, in.rates), out.interval_s, in.recovery.checkpoint_s);
  };
  const double segment =
      expected_segment_s(mean_rate, plan.keeps_work ? 0 : std::min(out.interval_s, in.work_s),
                         in.recovery.checkpoint_s, mean_outage_s(in.recovery, in.rates));
  if (!(segment < kNeverEnds * (std::min(out.interval_s, in.work_s) + in.recovery.checkpoint_s)))
    never_ends();
  // A trial costs its failures, outages that fail again included.
  const double piece = plan.keeps_work ? 0 : std::min(out.interval_s, in.work_s);
  const double stretch = segment / (piece + in.recovery.checkpoint_s + 1e-9);
  const double events = in.work_s * std::max(1.0, stretch) * mean_rate *
                        std::exp(mean_rate * mean_outage_s(in.recovery, in.rates));
  constexpr int kFewestTrials = 100;
  const double years = in.work_s / (365.25 * kDay);
  if (!(events * kFewestTrials < 40 * kMostEvents && years < kMostYears))
    fail(
        ErrorKind::kUsage,
        "the run would take {:.3g} years of work and fail {:.3g} times: too long to simulate. Train on fewer "
        "tokens or on more machines",
        years, events);
  const int trials =
      events * in.trials > kMostEvents
          ? std::min(in.trials, std::max(kFewestTrials, static_cast<int>(kMostEvents / events)))
          : in.trials;
  std::vector<double> walls, failures;
  const double n = trials;

  for (int i = 0; i < trials; ++i) {
    if (stop_requested()) fail(ErrorKind::kCancelled, "simulation of failures stopped on request");
    const Trial t = plan.run(static_cast<uint64_t>(i));
    walls.push_back(t.wall);
    failures.push_back(t.failures);
    out.wall_mean_s += t.wall / n;
    out.checkpoint_s += t.checkpoints / n;
    out.lost_work_s += t.lost / n;
    out.outage_s += t.outage / n;
    out.degraded_s += t.degraded / n;
    out.failures.mid += t.failures / n;
  }
  out.wall_p50_s = nearest_rank_quantile(walls, 0.50);
  out.wall_p90_s = nearest_rank_quantile(walls, 0.90);
  out.wall_p99_s = nearest_rank_quantile(walls, 0.99);
  out.failures.low = nearest_rank_quantile(failures, 0.10);
  out.failures.high = nearest_rank_quantile(failures, 0.90);
  const auto goodput_of = [&](double wall) { return wall > 0 ? in.work_s / wall : 1.0; };
  out.mean_goodput = goodput_of(out.wall_mean_s);
  out.goodput = {goodput_of(out.wall_p90_s), goodput_of(out.wall_p50_s),
                 goodput_of(nearest_rank_quantile(walls, 0.10))};
  for (size_t i = 0; i < in.rates.size(); ++i)
    out.failures_by_component.emplace_back(in.rates[i].name, by_component[i] / n);
  if (in.preemptions_per_s > 0) out.failures_by_component.emplace_back("preemption", by_component.back() / n);
  return out;
}

}  // namespace stoker::plan
