#include "cli/plan_screen.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/progress.h"

namespace stoker::cli {

using namespace stoker::plan;

std::string human_count(double v) {
  const char* units[] = {"", " K", " M", " B", " T", " Q"};
  size_t u = 0;
  while (std::abs(v) >= 999.5 && u < 5) v /= 1000, ++u;
  return fmt::format("{:.3g}{}", v, units[u]);
}

std::string human_days(Seconds s) {
  const double v = s.value();
  if (v < 120) return fmt::format("{:.3g} s", v);
  if (v < 7200) return fmt::format("{:.3g} min", v / 60);
  if (v < 2 * 86400) return fmt::format("{:.3g} h", v / 3600);
  return fmt::format("{:.4g} days", v / 86400);
}

std::string human_dollars(double usd) {
  if (usd < 1000) return fmt::format("${:.2f}", usd);
  return "$" + human_count(usd);
}

std::string dollars_band(const PathCost& c) {
  return fmt::format("{} ({} to {})", human_dollars(c.total.mid.value()), human_dollars(c.total.low.value()),
                     human_dollars(c.total.high.value()));
}

namespace {

double mwh(Joules j) { return j.value() / 3.6e9; }
std::string mwh_text(Joules j) {
  const double v = mwh(j);
  return v < 1     ? fmt::format("{:.3g} kWh", v * 1000)
         : v < 1e4 ? fmt::format("{:.4g} MWh", v)
                   : fmt::format("{:.3g} GWh", v / 1000);
}
std::string power_text(double watts) {
  return watts < 1e3   ? fmt::format("{:.0f} W", watts)
         : watts < 1e6 ? fmt::format("{:.3g} kW", watts / 1e3)
                       : fmt::format("{:.3g} MW", watts / 1e6);
}

std::string line(std::string_view label, std::string_view text) {
  return fmt::format("{:<11} {}\n", label, text);
}

std::string limits_text(const Prediction& p) {
  return fmt::format("{}; then {}, {}, {}", to_string(p.binds), to_string(p.next_limits[0]),
                     to_string(p.next_limits[1]), to_string(p.next_limits[2]));
}

}  // namespace

std::string range_note(const Prediction& p) {
  return fmt::format(
      "range: nine of ten published runs like it ({}; {} runs held out) were within {:.0f} %, "
      "half within {:.0f} %",
      p.error_band_group, p.error_band_runs, 100 * p.error_band_p90, 100 * p.error_band);
}

std::string plan_screen(const Assessment& a) {
  const PlanRequest& r = a.request;
  const Prediction& p = a.chosen.prediction;
  std::string out = fmt::format(
      "{}: {} parameters{} on {} x {}, {} tokens, {}{}\n\n", r.name, human_count(a.parameters),
      a.active_parameters < 0.99 * a.parameters
          ? fmt::format(" ({} active)", human_count(a.active_parameters))
          : "",
      r.hardware.accelerators, r.hardware.accelerator.name, human_count(r.tokens), to_string(r.run.precision),
      r.run.training == TrainingKind::kPretrain ? "" : fmt::format(", {}", to_string(r.run.training)));
  const std::string_view verdict = !a.fits ? "NO" : p.memory.verdict == Verdict::kTight ? "tight" : "yes";
  out += line("fits", fmt::format("{}: {:.1f} of {:.1f} GiB on the fullest accelerator", verdict,
                                  in_gibibytes(p.memory.peak), in_gibibytes(p.memory.capacity)));
  out += line("layout", fmt::format("{}  ({} considered, {} too large)", describe(a.chosen.run),
                                    a.layouts.considered, a.layouts.did_not_fit));
  if (!a.fits) {
    out += line("", "the leanest layout is shown; nothing below it is planned");
    if (const auto enough = enough_accelerators(r))
      out += line("would fit", fmt::format("on {} x {}", *enough, r.hardware.accelerator.name));
    else if (!r.fixed_layout)
      out +=
          line("would fit",
               "on no doubling of them with this batch: shorter sequences, recomputation or larger memory");
    for (const std::string& w : a.warnings) out += line("note", w);
    return out;
  }
  out += line("step",
              fmt::format("{} ({} to {})  {} tokens/s  MFU {:.1f} %  {} steps of {} tokens",
                          human_days(a.step.mid), human_days(a.step.low), human_days(a.step.high),
                          human_count(static_cast<double>(a.chosen.run.batch.tokens()) / a.step.mid.value()),
                          p.mfu * 100 / a.step.mid.value() * p.step.total.value(), human_count(a.steps),
                          human_count(static_cast<double>(a.chosen.run.batch.tokens()))));
  out += line("", range_note(p));
  out += line("time",
              fmt::format("{} (50 %), {} (90 %), {} (99 %); {} to {} with the step's error; goodput {:.1f} %",
                          human_days(a.wall_p50), human_days(a.wall_p90), human_days(a.wall_p99),
                          human_days(a.wall.low), human_days(a.wall.high), a.goodput.mean_goodput * 100));
  out +=
      line("failures",
           std::isfinite(a.goodput.mtbf_s)
               ? fmt::format("{:.3g} expected ({:.0f} to {:.0f}), one in {}; checkpoint every {} ({})",
                             a.goodput.failures.mid, a.goodput.failures.low, a.goodput.failures.high,
                             human_days(Seconds(a.goodput.mtbf_s)), human_days(Seconds(a.goodput.interval_s)),
                             r.checkpoint_interval_s ? "given" : "optimal")
               : "none expected");
  out += line("energy",
              fmt::format("{} ({} to {}) at the site, {} drawn, {} tCO2e ({} to {}; {}, {:g} g/kWh)",
                          mwh_text(a.energy.site.mid), mwh_text(a.energy.site.low),
                          mwh_text(a.energy.site.high), power_text(a.draw.it.mid.value() * a.pue.mid),
                          human_count(a.energy.tonnes_co2.mid), human_count(a.energy.tonnes_co2.low),
                          human_count(a.energy.tonnes_co2.high), a.grid.code, a.grid.carbon_g_per_kWh));
  if (!r.workstation)
    out += line("site",
                fmt::format("{} at peak, {} rack{} of {}: {}; water {} l", power_text(a.racks.site_mw * 1e6),
                            a.racks.racks, a.racks.racks == 1 ? "" : "s", power_text(a.racks.rack_kw * 1e3),
                            to_string(a.racks.cooling), human_count(a.energy.water_litres.mid)));
  if (a.cost().possible)
    out +=
        line("money",
             fmt::format("{} {}, {:.2f} $/accelerator-hour all in; ready in {:.0f} to {:.0f} days",
                         to_string(a.cost().path), dollars_band(a.cost()), a.cost().per_accelerator_hour.mid,
                         a.cost().lead_days.low, a.cost().lead_days.high));
  std::vector<const PathCost*> others;
  for (const PathCost& c : a.paths)
    if (&c != &a.cost() && c.possible) others.push_back(&c);
  std::sort(others.begin(), others.end(), [](auto* x, auto* y) { return x->total.mid < y->total.mid; });
  std::string also;
  for (const PathCost* c : others)
    also += fmt::format("{}{} {}", also.empty() ? "" : ", ", to_string(c->path),
                        human_dollars(c->total.mid.value()));
  if (!also.empty()) out += line("", "other ways: " + also);
  const bool adapting = r.run.training != TrainingKind::kPretrain;
  if (!adapting)
    out += line(
        "learns",
        fmt::format(
            "loss {:.3f} nats ({:.3f} to {:.3f}); same compute at its best {:.3f} with {} on {}{}",
            a.learned.loss.mid, a.learned.loss.low, a.learned.loss.high, a.learned.compute_optimal_loss.mid,
            human_count(a.learned.optimal_parameters.mid), human_count(a.learned.optimal_tokens.mid),
            a.learned.dollars_per_millinat.mid > 0
                ? fmt::format("; next 0.001 costs {}", human_dollars(a.learned.dollars_per_millinat.mid))
                : ""));
  out += line("binds", limits_text(p));
  for (size_t i = 0; i < a.layouts.best.size(); ++i) {
    const LayoutCandidate& c = a.layouts.best[i];
    out +=
        line(i == 0 ? "best" : "", fmt::format("{}. {}: {}, MFU {:.1f} %, {:.0f} GiB{}", i + 1,
                                               describe(c.run), human_days(c.prediction.step.total),
                                               c.prediction.mfu * 100, in_gibibytes(c.prediction.memory.peak),
                                               i == 0 ? "" : "; 1 is " + why_faster(a.layouts.best[0], c)));
  }
  for (const Limit& l : a.limits) out += line(l.met ? "met" : "NOT MET", l.text);
  for (const std::string& w : a.warnings) out += line("beware", w);
  for (const std::string& n : r.notes) out += line("assumed", n);
  return out;
}

std::string plan_explanation(const Assessment& a) {
  const Prediction& p = a.chosen.prediction;
  const PlanRequest& r = a.request;
  std::string out = "\nstep time, terms (catalog/efficiency.csv; equations in docs/planner-model.md)\n";
  for (int t = 0; t < kStepTerms; ++t) {
    const Seconds s = p.step.terms[static_cast<size_t>(t)];
    if (s.value() > 0)
      out += fmt::format("  {:<28} {:>10.4g} s {:>6.1f} %\n", to_string(static_cast<StepTerm>(t)), s.value(),
                         100 * (s / p.step.total));
  }
  out += fmt::format(
      "  {:<28} {:>10.4g} s; band from validation: median error {:.0f} %, 90th percentile {:.0f} %\n",
      "total", p.step.total.value(), p.error_band * 100, p.error_band_p90 * 100);
  if (a.cap_slowdown.mid > 1)
    out += fmt::format(
        "  power cap of {:.0f} W: computing takes {:.2f} times as long (power.cap_static_share)\n",
        r.power_cap_w, a.cap_slowdown.mid);
  out += "\nmemory of the fullest accelerator\n";
  for (const FootprintRow& row : p.memory.footprint.rows)
    if (row.bytes.value() > 0)
      out += fmt::format("  {:<28} {:>10.3f} GiB\n", row.what, in_gibibytes(row.bytes));
  out += fmt::format("  {:<28} {:>10.3f} GiB of {:.3f} usable\n", "peak", in_gibibytes(p.memory.peak),
                     in_gibibytes(p.memory.capacity));

  out += fmt::format(
      "\nfailures: rates of {} times a log-normal factor over the clusters in catalog/failure_logs.csv\n",
      "arXiv 2407.21783 Table 5");
  for (const auto& [name, count] : a.goodput.failures_by_component)
    out += fmt::format("  {:<28} {:>10.3g} in the run\n", name, count);
  out += fmt::format(
      "  recovery {}: detect {:.0f} s, restart {:.0f} s, load {:.0f} s, replace {:.0f} s (figures "
      "recovery.*)\n",
      to_string(a.recovery.mode), a.recovery.detect_s, a.recovery.restart_s, a.recovery.load_s,
      a.recovery.replace_s);
  out += fmt::format(
      "  checkpoint {} in {:.3g} s (checkpoint.snapshot_gbps_per_accelerator); every {:.4g} s: exact {:.4g}, "
      "Young "
      "{:.4g}, Daly {:.4g}\n",
      human_bytes(a.checkpoint_bytes), a.recovery.checkpoint_s, a.goodput.interval_s,
      a.goodput.cadence.exact_s, a.goodput.cadence.young_s, a.goodput.cadence.daly_s);
  out +=
      fmt::format("  mean time: {} work + {} checkpoints + {} lost work + {} outages + {} on fewer nodes\n",
                  human_days(a.work.mid), human_days(Seconds(a.goodput.checkpoint_s)),
                  human_days(Seconds(a.goodput.lost_work_s)), human_days(Seconds(a.goodput.outage_s)),
                  human_days(Seconds(a.goodput.degraded_s)));

  out +=
      fmt::format("\npower while it runs, {:.0f} % of it computing (figures power.*)\n", a.utilisation * 100);
  const std::pair<const char*, const Band<Watts>*> parts[] = {{"accelerators", &a.draw.accelerators},
                                                              {"hosts", &a.draw.hosts},
                                                              {"network", &a.draw.network},
                                                              {"storage", &a.draw.storage}};
  for (const auto& [name, band] : parts)
    out += fmt::format("  {:<28} {:>10} ({} to {})\n", name, power_text(band->mid.value()),
                       power_text(band->low.value()), power_text(band->high.value()));
  out += fmt::format("  x {} x PUE {:.2f} = {}; x {:g} g/kWh ({}; {}) = {:.4g} t\n", human_days(a.wall.mid),
                     a.pue.mid, mwh_text(a.energy.site.mid), a.grid.carbon_g_per_kWh, a.grid.name,
                     a.grid.source, a.energy.tonnes_co2.mid);

  for (const PathCost& c : a.paths) {
    if (!c.possible) {
      out += fmt::format("\nmoney, {}: not possible: {}\n", to_string(c.path), c.reason);
      continue;
    }
    out += fmt::format("\nmoney, {}: {}{}\n", to_string(c.path), dollars_band(c),
                       c.reason.empty() ? "" : "; " + c.reason);
    for (const CostLine& l : c.lines)
      out += fmt::format("  {:<28} {:>10}  {}  [{}]\n", l.name, human_dollars(l.cost.mid.value()), l.how,
                         l.source);
    if (c.to_raise.value() > 0)
      out += fmt::format("  {:<28} {:>10}  before the first step\n", "to raise",
                         human_dollars(c.to_raise.value()));
  }
  out += "\nlearning: ";
  for (const Fit fit : all_fits()) {
    const LossFit& f = loss_fit(fit);
    out += fmt::format("{} ({}) {:.3f}; ", f.name, f.source,
                       data_limited_loss(f, a.active_parameters, r.tokens,
                                         r.unique_tokens > 0 ? r.unique_tokens : r.tokens));
  }
  out += fmt::format("{:.2f} epochs, {} effective tokens\n", a.learned.epochs,
                     human_count(a.learned.effective_tokens));
  out += "\nfigures used: stoker plan figures lists each with its range, date, kind and source\n";
  return out;
}

std::string lever_table(const Assessment& a, const std::vector<Lever>& levers) {
  std::string out = fmt::format("{:<28} {:>22} {:>8} {:>8} {:>9}  {}\n", "lever", "time (low to high)",
                                "energy", "money", "memory", "what");
  const auto change = [](double factor) { return fmt::format("{:+.1f} %", (factor - 1) * 100); };
  for (const Lever& l : levers) {
    if (!l.applies) {
      out += fmt::format("{:<28} {:>22} {:>8} {:>8} {:>9}  {}\n", l.name, "-", "-", "-", "-", l.reason);
      continue;
    }
    const std::string spread =
        l.time.low == l.time.high
            ? change(l.time.mid)
            : fmt::format("{} ({} to {})", change(l.time.mid), change(l.time.low), change(l.time.high));
    out += fmt::format("{:<28} {:>22} {:>8} {:>8} {:>9}  {} [{}]\n", l.name, spread, change(l.energy.mid),
                       change(l.money.mid), l.memory_gib == 0 ? "" : fmt::format("{:+.1f} GiB", l.memory_gib),
                       l.what, l.source);
  }
  if (levers.empty()) out += "nothing fits, so nothing can be improved: start with memory\n";
  else
    out += fmt::format("the plan's own step, {} ({} to {}); {}\n", human_days(a.step.mid),
                       human_days(a.step.low), human_days(a.step.high), range_note(a.chosen.prediction));
  return out;
}

}  // namespace stoker::cli
