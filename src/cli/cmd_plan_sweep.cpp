// plan compare, scale and search: many plans side by side.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "cli/command.h"
#include "cli/json_number.h"
#include "cli/plan_options.h"
#include "cli/plan_screen.h"
#include "plan/assessment_json.h"
#include "plan/sweep.h"

namespace stoker::cli {
namespace {

using namespace stoker::plan;
using nlohmann::json;

AssessOptions sweep_options(const PlanOptions& o) {
  AssessOptions options;
  options.trials = std::min(o.trials, 300);
  return options;
}

std::string days_range(const Band<Seconds>& wall) {
  const auto days = [](Seconds s) { return s.value() / 86400; };
  return fmt::format("{:.4g} ({:.3g} to {:.3g})", days(wall.mid), days(wall.low), days(wall.high));
}

json point_json(const SweepPoint& p) {
  json j{{"on", p.on}};
  if (!p.assessment) {
    j["reason"] = p.reason;
    return j;
  }
  j["bottleneck"] = p.bottleneck;
  j["speedup_of_doubling"] = p.speedup_of_doubling > 0 ? json(p.speedup_of_doubling) : json(nullptr);
  j["plan"] = to_json(*p.assessment);
  return j;
}

double cheapest_rent(const Assessment& a) {
  double rent = 0;
  for (const PathCost& c : a.paths)
    if (c.possible && c.path == PathKind::kOnDemand) rent = c.per_accelerator_hour.mid;
  return rent;
}

void changed(const char* name, double x, const std::string& was, double y, const std::string& is) {
  fmt::print("{:<14} {:>36} {:>36} {:>9}\n", name, was, is,
             x > 0 ? fmt::format("{:+.1f} %", (y / x - 1) * 100) : "");
}

// Every number of two plans, with its range.
void print_change(const Assessment& a, const Assessment& b) {
  const auto plain = [](double v) { return fmt::format("{:.4g}", v); };
  const auto row = [&](const char* name, double x, double y) { changed(name, x, plain(x), y, plain(y)); };
  const auto band = [&](const char* name, auto x, auto y, auto text) {
    const auto all = [&](auto v) {
      return fmt::format("{} ({} to {})", text(v.mid), text(v.low), text(v.high));
    };
    const decltype(x.mid) unit(1);
    changed(name, x.mid / unit, all(x), y.mid / unit, all(y));
  };
  const auto quantile = [&](const char* name, Seconds x, Seconds y) {
    changed(name, x.value(), human_days(x), y.value(), human_days(y));
  };
  const auto megawatt_hours = [&](Joules j) { return plain(j.value() / 3.6e9); };
  fmt::print("{:<14} {:>36} {:>36} {:>9}\n", "", "as planned (low to high)", "what if (low to high)",
             "change");
  row("memory, GiB", in_gibibytes(a.chosen.prediction.memory.peak),
      in_gibibytes(b.chosen.prediction.memory.peak));
  band("step", a.step, b.step, human_days);
  row("MFU, %", a.chosen.prediction.mfu * 100, b.chosen.prediction.mfu * 100);
  band("time, mean", a.wall, b.wall, human_days);
  quantile("time, 50 %", a.wall_p50, b.wall_p50);
  quantile("time, 99 %", a.wall_p99, b.wall_p99);
  row("goodput, %", a.goodput.mean_goodput * 100, b.goodput.mean_goodput * 100);
  band("failures", a.goodput.failures, b.goodput.failures, plain);
  band("energy, MWh", a.energy.site, b.energy.site, megawatt_hours);
  band("tCO2e", a.energy.tonnes_co2, b.energy.tonnes_co2, plain);
  row("site, MW", a.racks.site_mw, b.racks.site_mw);
  if (a.cost().possible && b.cost().possible)
    changed("money", a.cost().total.mid.value(), dollars_band(a.cost()), b.cost().total.mid.value(),
            dollars_band(b.cost()));
  band("loss, nats", a.learned.loss, b.learned.loss, plain);
}

}  // namespace

void add_plan_compare(Command& plan) {
  auto* cmd =
      plan.add_subcommand("compare", "Deployment paths, offers and hardware side by side, with break-even");
  auto o = add_plan_options(*cmd, true);
  auto with = std::make_shared<std::vector<std::string>>();
  cmd->add_option("--with", *with, "More hardware to compare: h200:512 (repeat)")->one_each();
  cmd->footer("Example: stoker plan compare recipes/plan/gpt3_175b_a100.toml --with h100:1024");
  cmd->callback([o, with] {
    const PlanRequest request = plan_request(*o);
    std::vector<std::string> all{request.on};
    all.insert(all.end(), with->begin(), with->end());
    json rows = json::array();
    if (!o->json)
      fmt::print("{:<16} {:<12} {:>24} {:>9} {:>10} {:>26} {:>8} {:>10} {:>12}  {}\n", "hardware", "path",
                 "days (low to high)", "MWh", "tCO2e", "cost (low to high)", "$/acc-h", "to raise",
                 "lead days", "beware");
    for (const std::string& on : all) {
      const Assessment a = assess(on_hardware(request, on), sweep_options(*o));
      if (o->json) {
        json row{{"on", on}, {"plan", to_json(a)}, {"break_even", json::array()}};
        const double rent = cheapest_rent(a);
        for (const PathKind owned : {PathKind::kOnPremises, PathKind::kHyperscale}) {
          if (!a.fits || rent <= 0) continue;
          const BreakEven even = break_even(owned, rent, money_input(a), a.request.figures);
          row["break_even"].push_back({{"path", std::string(to_string(owned))},
                                       {"rent_usd_per_accelerator_hour", rent},
                                       {"utilisation", number_or_null(even.utilisation)},
                                       {"months", number_or_null(even.months)}});
        }
        rows.push_back(std::move(row));
        continue;
      }
      if (!a.fits) {
        fmt::print("{:<16} does not fit: {}\n", on, a.limits.empty() ? "memory" : a.limits[0].text);
        continue;
      }
      for (const PathCost& c : a.paths) {
        if (!c.possible) {
          fmt::print("{:<16} {:<12} {}\n", on, to_string(c.path), c.reason);
          continue;
        }
        fmt::print("{:<16} {:<12} {:>24} {:>9.4g} {:>10.4g} {:>26} {:>8.2f} {:>10} {:>12}  {}\n", on,
                   to_string(c.path), days_range(c.wall), c.energy.site.mid.value() / 3.6e9,
                   c.energy.tonnes_co2.mid, dollars_band(c), c.per_accelerator_hour.mid,
                   c.to_raise.value() > 0 ? human_dollars(c.to_raise.value()) : "-",
                   fmt::format("{:.0f} to {:.0f}", c.lead_days.low, c.lead_days.high), c.reason);
      }
      const double rent = cheapest_rent(a);
      if (rent > 0)
        for (const PathKind owned : {PathKind::kOnPremises, PathKind::kHyperscale}) {
          const BreakEven even = break_even(owned, rent, money_input(a), a.request.figures);
          fmt::print("{:<16} {:<12} beats on-demand ({:.2f} $/h) {}; {}. {}\n", on, to_string(owned), rent,
                     even.utilisation <= 1
                         ? fmt::format("above {:.0f} % use over the hardware's life", even.utilisation * 100)
                         : "at no utilisation",
                     std::isfinite(even.months)
                         ? fmt::format("after {:.0f} months at {:.0f} % use", even.months,
                                       a.request.utilisation * 100)
                         : fmt::format("never at {:.0f} % use", a.request.utilisation * 100),
                     even.how);
        }
    }
    if (o->json) fmt::print("{}\n", json{{"compare", std::move(rows)}}.dump(2));
  });
}

void add_plan_scale(Command& plan) {
  auto* cmd = plan.add_subcommand("scale", "Sweep the cluster, or the model's size: where more stops paying");
  auto o = add_plan_options(*cmd, true);
  auto from = std::make_shared<int64_t>(8), to = std::make_shared<int64_t>(16384);
  auto sizes = std::make_shared<std::vector<double>>();
  cmd->add_option("--from", *from, "Fewest accelerators")->capture_default_str();
  cmd->add_option("--to", *to, "Most accelerators; doubles in between")->capture_default_str();
  cmd->add_option("--sizes", *sizes, "Sweep llama-shaped models of these parameters instead")->delimiter(',');
  cmd->footer("Example: stoker plan scale recipes/plan/llama3_8b_h100.toml --from 64 --to 1024");
  cmd->callback([o, from, to, sizes] {
    const PlanRequest request = plan_request(*o);
    json rows = json::array();
    std::string note;
    if (!sizes->empty()) {
      if (!o->json)
        fmt::print("{:>12} {:>9} {:>10} {:>12} {:>24} {:>10} {:>12} {:>10}  {}\n", "parameters", "tokens",
                   "step", "MFU %", "days (low to high)", "MWh", "cost", "loss", "layout");
      for (const double size : *sizes) {
        // Tokens per parameter stay, unless --tokens fixes them.
        PlanRequest r = plan_request(*o, {fmt::format("model=\"size:{:.17g}\"", size)});
        const Assessment a = assess(r, sweep_options(*o));
        if (o->json) {
          rows.push_back(to_json(a));
          continue;
        }
        if (!a.fits) {
          fmt::print("{:>12} does not fit: {}\n", human_count(a.parameters),
                     a.limits.empty() ? "" : a.limits[0].text);
          continue;
        }
        note = range_note(a.chosen.prediction);
        fmt::print("{:>12} {:>9} {:>10} {:>12.1f} {:>24} {:>10.4g} {:>12} {:>10.3f}  {}\n",
                   human_count(a.parameters), human_count(r.tokens), human_days(a.step.mid),
                   a.chosen.prediction.mfu * 100, days_range(a.wall), a.energy.site.mid.value() / 3.6e9,
                   a.cost().possible ? human_dollars(a.cost().total.mid.value()) : "-", a.learned.loss.mid,
                   describe(a.chosen.run));
      }
      if (o->json) fmt::print("{}\n", json{{"sizes", std::move(rows)}}.dump(2));
      else if (!note.empty()) fmt::print("{}\n", note);
      return;
    }
    const auto points = sweep(request, {request.on}, *from, *to, sweep_options(*o));
    if (o->json) {
      for (const SweepPoint& p : points) rows.push_back(point_json(p));
      fmt::print("{}\n", json{{"scale", std::move(rows)}}.dump(2));
      return;
    }
    fmt::print("{:>14} {:>11} {:>7} {:>8} {:>24} {:>9} {:>9} {:>9} {:>12}  {:<22} {}\n", "accelerators",
               "step", "MFU %", "goodput", "days (low to high)", "doubling", "site MW", "MWh", "cost",
               "what limits", "layout");
    for (const SweepPoint& p : points) {
      if (!p.assessment) {
        fmt::print("{:>14} {}\n", p.on, p.reason);
        continue;
      }
      const Assessment& a = *p.assessment;
      note = range_note(a.chosen.prediction);
      fmt::print("{:>14} {:>11} {:>7.1f} {:>7.1f}% {:>24} {:>9} {:>9.3g} {:>9.4g} {:>12}  {:<22} {}\n", p.on,
                 human_days(a.step.mid), a.chosen.prediction.mfu * 100, a.goodput.mean_goodput * 100,
                 days_range(a.wall),
                 p.speedup_of_doubling > 0 ? fmt::format("{:.2f} x", p.speedup_of_doubling) : "-",
                 a.racks.site_mw, a.energy.site.mid.value() / 3.6e9,
                 a.cost().possible ? human_dollars(a.cost().total.mid.value()) : "-", p.bottleneck,
                 describe(a.chosen.run));
    }
    if (!note.empty()) fmt::print("{}\n", note);
  });
}

void add_plan_search(Command& plan) {
  auto* cmd = plan.add_subcommand("search", "Plans that no other beats in time, cost and energy together");
  auto o = add_plan_options(*cmd, true);
  auto from = std::make_shared<int64_t>(8), to = std::make_shared<int64_t>(16384);
  auto with = std::make_shared<std::vector<std::string>>();
  cmd->add_option("--from", *from, "Fewest accelerators")->capture_default_str();
  cmd->add_option("--to", *to, "Most accelerators; doubles in between")->capture_default_str();
  cmd->add_option("--with", *with, "More kinds of hardware: h200 (repeat)")->one_each();
  cmd->footer("Example: stoker plan search recipes/plan/llama3_8b_h100.toml --with h200 --from 64 --to 1024");
  cmd->callback([o, from, to, with] {
    const PlanRequest request = plan_request(*o);
    std::vector<std::string> kinds{request.on};
    kinds.insert(kinds.end(), with->begin(), with->end());
    const auto points = sweep(request, kinds, *from, *to, sweep_options(*o));
    const auto front = pareto(points);
    size_t layouts = 0, planned = 0;
    for (const SweepPoint& p : points)
      if (p.assessment) {
        layouts += p.assessment->layouts.considered;
        ++planned;
      }
    if (o->json) {
      json rows = json::array();
      for (const ParetoPoint& p : front)
        rows.push_back({{"on", p.on},
                        {"path", std::string(to_string(p.cost->path))},
                        {"days", p.days},
                        {"usd", p.dollars},
                        {"site_mwh", p.mwh},
                        {"layout", describe(p.assessment->chosen.run)}});
      fmt::print("{}\n", json{{"pareto", std::move(rows)},
                              {"layouts_considered", layouts},
                              {"clusters_planned", planned},
                              {"clusters", points.size()}}
                             .dump(2));
      return;
    }
    fmt::print("{:<16} {:<12} {:>24} {:>28} {:>10}  {}\n", "hardware", "path", "days (low to high)", "cost",
               "MWh", "layout");
    for (const ParetoPoint& p : front)
      fmt::print("{:<16} {:<12} {:>24} {:>28} {:>10.4g}  {}\n", p.on, to_string(p.cost->path),
                 days_range(p.cost->wall), dollars_band(*p.cost), p.mwh, describe(p.assessment->chosen.run));
    fmt::print("{} of {} clusters planned, {} layouts considered; {} plans stand\n", planned, points.size(),
               layouts, front.size());
    std::set<std::string> notes;
    for (const ParetoPoint& p : front)
      if (const auto [note, fresh] = notes.insert(range_note(p.assessment->chosen.prediction)); fresh)
        fmt::print("{}\n", *note);
  });
}

void add_plan_whatif(Command& plan) {
  auto* cmd = plan.add_subcommand("whatif", "Change settings and see every number move");
  auto o = add_plan_options(*cmd, true);
  cmd->footer("Example: stoker plan whatif plan.toml --set run.precision=fp8 --set hardware.power_cap_w=500");
  cmd->callback([o] {
    if (o->settings.empty()) fail(ErrorKind::kUsage, "whatif needs at least one --set KEY=VALUE");
    PlanOptions before = *o;
    before.settings.clear();
    AssessOptions options;
    options.trials = o->trials;
    const Assessment a = assess(plan_request(before), options), b = assess(plan_request(*o), options);
    if (o->json) {
      fmt::print("{}\n", json{{"before", to_json(a)}, {"after", to_json(b)}}.dump(2));
      return;
    }
    print_change(a, b);
    fmt::print("{:<18} {}\n{:<18} {}\n", "layout as planned", describe(a.chosen.run), "layout what if",
               describe(b.chosen.run));
    if (!b.fits) fmt::print("what if does not fit: {}\n", b.limits.empty() ? "memory" : b.limits[0].text);
    else fmt::print("{}\n", range_note(b.chosen.prediction));
    for (const std::string& w : b.warnings) fmt::print("beware  {}\n", w);
  });
}

}  // namespace stoker::cli
