#include "plan/assess.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "spec/parameter_table.h"

namespace stoker::plan {
namespace {

double checkpoint_bytes_of(const RunSpec& run) {
  const double n = static_cast<double>(parameter_count(run.model));
  const double state = run.optimizer.master_bytes + run.optimizer.state_bytes;
  if (!trains_adapters(run)) return n * (parameter_bytes(run.precision) + state);
  // Adapters of every matrix: rank x (in + out), near rank x 2 x hidden for each of about seven a layer.
  const double adapters = static_cast<double>(run.lora_rank * 2 * run.model.hidden * 7 * run.model.layers);
  return adapters * (2 + state);
}

// The share of a step in which the accelerator computes, rather than waiting for others.
double computing_share(const StepTime& step) {
  const Seconds busy = step[StepTerm::kMatmul] + step[StepTerm::kAttention] + step[StepTerm::kMemoryBound] +
                       step[StepTerm::kRecompute] + step[StepTerm::kOptimizer];
  return std::clamp(busy / step.total, 0.0, 1.0);
}

Recovery recovery_for(const PlanRequest& r, double checkpoint_bytes, double step_s) {
  Recovery out = r.recovery;
  const FigureBook& f = r.figures;
  const int64_t nodes = r.hardware.nodes();
  if (!r.recovery_given) out.mode = nodes > 16 ? RecoveryMode::kHotSpare : RecoveryMode::kStorage;
  if (out.detect_s < 0) out.detect_s = f.at("recovery.detect_s").mid;
  if (out.restart_s < 0) out.restart_s = f.at("recovery.restart_s").mid;
  if (out.replace_s < 0)
    out.replace_s = f.at(out.mode == RecoveryMode::kElastic ? "recovery.repair_s" : "recovery.replace_s").mid;
  const double bandwidth = f.at("storage.gbps_per_node").mid * 1e9 * static_cast<double>(nodes);
  if (out.load_s < 0) out.load_s = checkpoint_bytes / bandwidth;
  const double copy = f.at("checkpoint.snapshot_gbps_per_accelerator").mid * 1e9 *
                      static_cast<double>(r.hardware.accelerators);
  out.checkpoint_s = r.checkpoint_s.value_or(std::max(0.5, checkpoint_bytes / copy));
  out.step_s = step_s;
  return out;
}

double preemptions_per_s(PathKind path, const PlanRequest& r) {
  if (path != PathKind::kSpot) return 0;
  return r.figures.at("rent.spot_interruptions_per_node_day").mid * static_cast<double>(r.hardware.nodes()) /
         86400;
}

GoodputInput goodput_input(const Assessment& a, PathKind path, const AssessOptions& options) {
  const FailureCatalog catalog = failure_catalog();
  GoodputInput in;
  in.work_s = a.work.mid.value();
  in.scale = {a.request.hardware.accelerators, a.request.hardware.accelerators_per_node};
  in.rates = job_rates(catalog, in.scale);
  if (path == PathKind::kMarketplace)
    for (ComponentRate& rate : in.rates)
      rate.per_day *= a.request.figures.at("rent.marketplace_failures").mid;
  in.log_factor_mean = catalog.log_factor_mean;
  in.log_factor_sigma = catalog.log_factor_sigma;
  in.recovery = a.recovery;
  in.interval_s = a.request.checkpoint_interval_s.value_or(0);
  in.preemptions_per_s = preemptions_per_s(path, a.request);
  in.trials = options.trials;
  in.seed = options.seed;
  return in;
}

Band<Seconds> wall_band(const Band<Seconds>& work, const GoodputResult& g) {
  const double stretch = work.mid.value() > 0 ? g.wall_mean_s / work.mid.value() : 1;
  return {work.low * (work.mid.value() > 0 ? std::min(stretch, 1 / std::max(g.goodput.high, 1e-9)) : 1),
          Seconds(g.wall_mean_s), work.high * std::max(stretch, 1 / std::max(g.goodput.low, 1e-9))};
}

void price_paths(Assessment& a, const AssessOptions& options) {
  const PlanRequest& r = a.request;
  std::vector<Offer> offers;
  if (r.price_files.empty()) offers = built_in_offers();
  for (const std::string& file : r.price_files) {
    std::vector<Offer> more = read_price_file(file);
    offers.insert(offers.end(), more.begin(), more.end());
  }
  MoneyInput in = money_input(a);
  for (const PathKind path : kAllPaths) {
    if (!options.all_paths && path != r.path) continue;
    in.wall = a.wall;
    const bool frailer = path == PathKind::kSpot || path == PathKind::kMarketplace;
    std::string frail;
    if (frailer && path != r.path) {
      try {
        in.wall = wall_band(a.work, simulate_goodput(goodput_input(a, path, options)));
      } catch (const Error& e) {
        frail = e.what();
      }
    }
    PathCost cost;
    if (frail.empty()) {
      cost = price_path(path, in, offers, r.figures);
    } else {
      cost.path = path;
      cost.possible = false;
      cost.reason = frail;
    }
    if (path == r.path) a.path = a.paths.size();
    a.paths.push_back(std::move(cost));
  }
}

void check_limits(Assessment& a) {
  const Constraints& c = a.request.constraints;
  const auto days = [](Seconds s) { return s.value() / 86400; };
  const auto add = [&](std::string what, bool met, std::string text) {
    a.limits.push_back({std::move(what), met, std::move(text)});
  };
  if (!a.fits)
    add("memory", false,
        fmt::format("memory: the leanest layout ({}) needs {:.1f} GiB of {:.1f} GiB", describe(a.chosen.run),
                    in_gibibytes(a.chosen.prediction.memory.peak),
                    in_gibibytes(a.chosen.prediction.memory.capacity)));
  if (c.deadline_days)
    add("deadline", days(a.wall_p90) <= *c.deadline_days,
        fmt::format("deadline {:.1f} days: done after {:.1f} days with 90 % certainty", *c.deadline_days,
                    days(a.wall_p90)));
  if (c.budget_usd && a.cost().possible)
    add("budget", a.cost().total.mid.value() <= *c.budget_usd,
        fmt::format("budget ${:.0f}: {} costs ${:.0f} (${:.0f} to ${:.0f})", *c.budget_usd,
                    to_string(a.cost().path), a.cost().total.mid.value(), a.cost().total.low.value(),
                    a.cost().total.high.value()));
  if (c.power_mw)
    add("power", a.racks.site_mw <= *c.power_mw,
        fmt::format("site power {:.3g} MW: the run needs {:.3g} MW", *c.power_mw, a.racks.site_mw));
  if (a.request.unique_tokens > 0 && a.learned.epochs > 4)
    add("data", false,
        fmt::format("data: {:.3g} tokens at hand are read {:.1f} times; beyond 4 times they are worth less "
                    "than new ones "
                    "({:.3g} effective)",
                    a.request.unique_tokens, a.learned.epochs, a.learned.effective_tokens));
  // Two limits that no size of cluster meets together: more machines for the deadline, fewer for the power.
  if (c.deadline_days && c.power_mw) {
    const double mw_days = a.racks.site_mw * days(a.wall_p90);
    if (mw_days > *c.deadline_days * *c.power_mw * 1.3)
      a.warnings.push_back(
          fmt::format("constraints.deadline_days = {} contradicts constraints.power_mw = {}: the work takes "
                      "{:.3g} MW-days on this "
                      "hardware and they allow {:.3g}",
                      *c.deadline_days, *c.power_mw, mw_days, *c.deadline_days * *c.power_mw));
  }
  if (c.deadline_days && c.budget_usd && a.cost().possible) {
    const double needed = a.cost().total.low.value();
    if (needed > *c.budget_usd && days(a.wall_p90) > *c.deadline_days)
      a.warnings.push_back(
          fmt::format("constraints.deadline_days = {} contradicts constraints.budget_usd = {:.4g}: more "
                      "machines meet the deadline, fewer "
                      "hours meet the budget, and this plan misses both",
                      *c.deadline_days, *c.budget_usd));
  }
}

void add_warnings(Assessment& a) {
  const PlanRequest& r = a.request;
  if (a.fits && a.chosen.prediction.memory.verdict == Verdict::kTight)
    a.warnings.push_back("memory is tight: within the planner's error of the capacity");
  if (a.learned.more_than_exists)
    a.warnings.push_back(fmt::format(
        "{:.3g} unique tokens are more than the public text that is thought to exist ({:.1g}, "
        "{:.1g} to {:.1g})",
        r.unique_tokens > 0 ? r.unique_tokens : r.tokens, r.figures.at("data.public_text_tokens").mid,
        r.figures.at("data.public_text_tokens").low, r.figures.at("data.public_text_tokens").high));
  if (a.racks.cooling != Cooling::kRoomAir && !r.workstation && r.hardware.nodes() > 1)
    a.warnings.push_back(fmt::format("{} nodes in a rack make {:.0f} kW: {}; air carries {}",
                                     a.racks.nodes_per_rack, a.racks.rack_kw, to_string(a.racks.cooling),
                                     a.racks.air_nodes_per_rack > 0
                                         ? fmt::format("{} a rack", a.racks.air_nodes_per_rack)
                                         : std::string("none")));
  if (a.goodput.mean_goodput < 0.8)
    a.warnings.push_back(fmt::format("failures take {:.0f} % of the time: see failures.recovery",
                                     100 * (1 - a.goodput.mean_goodput)));
  const Precision precision = r.run.precision;
  if ((precision == Precision::kFp8 || precision == Precision::kFp4) &&
      !(r.hardware.accelerator.peak(precision) > FlopsPerSecond(0)))
    a.warnings.push_back(fmt::format("{} has no {} arithmetic: the next wider type's rate is planned with",
                                     r.hardware.accelerator.name, to_string(precision)));
  if (!r.release.empty()) {
    const std::vector<std::string> known = fitted_efficiency().releases_of(r.engine);
    if (std::find(known.begin(), known.end(), r.release) == known.end())
      a.warnings.push_back(fmt::format("no published run of release '{}': {} in the mean is planned with{}{}",
                                       r.release, r.engine, known.empty() ? "" : "; known are ",
                                       fmt::join(known, ", ")));
  }
  if (!a.cost().possible) a.warnings.push_back("no price: " + a.cost().reason);
  const PathCost* cheapest = nullptr;
  for (const PathCost& c : a.paths)
    if (c.possible && (!cheapest || c.total.mid < cheapest->total.mid)) cheapest = &c;
  if (a.cost().possible && cheapest && a.cost().total.mid.value() > 3 * cheapest->total.mid.value())
    a.warnings.push_back(fmt::format("{} costs {:.0f} times what {} does{}{}", to_string(a.cost().path),
                                     a.cost().total.mid.value() / cheapest->total.mid.value(),
                                     to_string(cheapest->path), a.cost().reason.empty() ? "" : ": ",
                                     a.cost().reason));
}

}  // namespace

MoneyInput money_input(const Assessment& a) {
  const PlanRequest& r = a.request;
  MoneyInput in;
  in.accelerator = r.hardware.accelerator.name;
  in.peak_tflops = std::max(r.hardware.accelerator.bf16, r.hardware.accelerator.fp16).value() / 1e12;
  in.accelerators = r.hardware.accelerators;
  in.accelerators_per_node = r.hardware.accelerators_per_node;
  in.wall = a.wall;
  in.draw = a.draw;
  in.grid = a.grid;
  in.utilisation = r.utilisation;
  in.dollars_per_hour = r.price;
  in.cloud = r.cloud;
  in.workstation = r.workstation;
  in.pue = r.pue;
  // Tokens of two bytes in, two checkpoints out; the last few checkpoints and the data kept.
  in.data_in_gb = r.data_in_gb.value_or(2 * r.tokens / 1e9);
  in.data_out_gb = r.data_out_gb.value_or(2 * a.checkpoint_bytes / 1e9);
  in.storage_tb = r.storage_tb.value_or((2 * r.tokens + 5 * a.checkpoint_bytes) / 1e12);
  return in;
}

Assessment assess_with(const PlanRequest& request, LayoutChoice layouts, const AssessOptions& options) {
  Assessment a;
  a.request = request;
  a.fits = !layouts.best.empty();
  if (!a.fits && !layouts.least_memory) fail(ErrorKind::kInternal, "no layout was predicted");
  a.chosen = a.fits ? layouts.best.front() : *layouts.least_memory;
  a.layouts = std::move(layouts);
  const FigureBook& f = request.figures;
  const Prediction& p = a.chosen.prediction;
  a.parameters = static_cast<double>(parameter_count(request.run.model));
  a.active_parameters = static_cast<double>(active_parameter_count(request.run.model));
  a.steps = std::ceil(request.tokens / static_cast<double>(a.chosen.run.batch.tokens()));

  PowerInput power;
  power.accelerator_max = request.hardware.accelerator.power;
  power.cap = Watts(request.power_cap_w);
  power.accelerators = request.hardware.accelerators;
  power.accelerators_per_node = request.hardware.accelerators_per_node;
  power.utilisation = computing_share(p.step);
  power.workstation = request.workstation;
  a.cap_slowdown = slowdown_from_cap(power, f);
  // A cap slows what computes, not what waits.
  const auto slowed = [&](double slow) { return 1 + power.utilisation * (slow - 1); };
  // Errors are of the ratio: too fast by a third and too slow by a half are the same mistake.
  const double error = p.error_band_p90;
  a.step = {p.step.total * (1 / (1 + error) * slowed(a.cap_slowdown.low)),
            p.step.total * slowed(a.cap_slowdown.mid),
            p.step.total * ((1 + error) * slowed(a.cap_slowdown.high))};
  a.work = a.step * a.steps;

  a.checkpoint_bytes = checkpoint_bytes_of(a.chosen.run);
  a.recovery = recovery_for(request, a.checkpoint_bytes, a.step.mid.value());
  a.goodput = simulate_goodput(goodput_input(a, request.path, options));
  a.wall = wall_band(a.work, a.goodput);
  a.wall_p50 = Seconds(a.goodput.wall_p50_s);
  a.wall_p90 = Seconds(a.goodput.wall_p90_s);
  a.wall_p99 = Seconds(a.goodput.wall_p99_s);

  a.utilisation = power.utilisation * a.goodput.mean_goodput;
  power.utilisation = a.utilisation;
  a.draw = power_draw(power, f);
  a.pue = pue_of(request.path, request.workstation, request.pue, f);
  a.grid = grid_region(request.region);
  a.energy = energy_use(a.draw, a.wall, a.pue, a.grid, f);
  power.utilisation = 1;
  const PowerDraw peak = power_draw(power, f);
  const double nodes = static_cast<double>(request.hardware.nodes());
  a.racks = plan_racks(Watts((peak.accelerators.high + peak.hosts.high).value() / nodes),
                       request.hardware.nodes(), a.pue.mid, f, request.rack_units);
  a.racks.site_mw = peak.it.high.value() * a.pue.mid / 1e6;
  price_paths(a, options);
  const double dollars = a.cost().possible ? a.cost().total.mid.value() : 0;
  a.learned = returns(a.active_parameters, request.tokens, request.unique_tokens, dollars,
                      f.at("data.public_text_tokens").mid);
  check_limits(a);
  add_warnings(a);
  return a;
}

Assessment assess(const PlanRequest& request, const AssessOptions& options) {
  return assess_with(request, choose_layouts(request), options);
}

}  // namespace stoker::plan
