// plan compare, scale and search: many plans side by side.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

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

MoneyInput owned_input(const Assessment& a) {
  MoneyInput in;
  in.accelerator = a.request.hardware.accelerator.name;
  in.peak_tflops =
      std::max(a.request.hardware.accelerator.bf16, a.request.hardware.accelerator.fp16).value() / 1e12;
  in.accelerators = a.request.hardware.accelerators;
  in.accelerators_per_node = a.request.hardware.accelerators_per_node;
  in.wall = a.wall;
  in.draw = a.draw;
  in.grid = a.grid;
  in.utilisation = a.request.utilisation;
  in.workstation = a.request.workstation;
  return in;
}

}  // namespace

void add_plan_compare(Command& plan) {
  auto* cmd =
      plan.add_subcommand("compare", "Deployment paths, offers and hardware side by side, with break-even");
  auto o = add_plan_options(*cmd, true);
  auto with = std::make_shared<std::vector<std::string>>();
  cmd->add_option("--with", *with, "More hardware to compare: h200:512 (repeat)");
  cmd->footer("Example: stoker plan compare recipes/plan/gpt3_175b_a100.toml --with h100:1024");
  cmd->callback([o, with] {
    const PlanRequest request = plan_request(*o);
    std::vector<std::string> all{request.on};
    all.insert(all.end(), with->begin(), with->end());
    json rows = json::array();
    if (!o->json)
      fmt::print("{:<16} {:<12} {:>11} {:>9} {:>10} {:>24} {:>8} {:>10} {:>12}  {}\n", "hardware", "path",
                 "days (50 %)", "MWh", "tCO2e", "cost (low to high)", "$/acc-h", "to raise", "lead days",
                 "beware");
    for (const std::string& on : all) {
      const Assessment a = assess(on_hardware(request, on), sweep_options(*o));
      if (o->json) {
        json row{{"on", on}, {"plan", to_json(a)}, {"break_even", json::array()}};
        const double rent = cheapest_rent(a);
        for (const PathKind owned : {PathKind::kOnPremises, PathKind::kHyperscale}) {
          if (!a.fits || rent <= 0) continue;
          const BreakEven even = break_even(owned, rent, owned_input(a), a.request.figures);
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
        fmt::print("{:<16} {:<12} {:>11.4g} {:>9.4g} {:>10.4g} {:>24} {:>8.2f} {:>10} {:>12}  {}\n", on,
                   to_string(c.path), a.wall_p50.value() / 86400, a.energy.site.mid.value() / 3.6e9,
                   a.energy.tonnes_co2.mid,
                   fmt::format("{} ({} to {})", human_dollars(c.total.mid.value()),
                               human_dollars(c.total.low.value()), human_dollars(c.total.high.value())),
                   c.per_accelerator_hour.mid,
                   c.to_raise.value() > 0 ? human_dollars(c.to_raise.value()) : "-",
                   fmt::format("{:.0f} to {:.0f}", c.lead_days.low, c.lead_days.high), c.reason);
      }
      const double rent = cheapest_rent(a);
      if (rent > 0)
        for (const PathKind owned : {PathKind::kOnPremises, PathKind::kHyperscale}) {
          const BreakEven even = break_even(owned, rent, owned_input(a), a.request.figures);
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
    if (!sizes->empty()) {
      if (!o->json)
        fmt::print("{:>12} {:>9} {:>10} {:>12} {:>10} {:>10} {:>12} {:>10}  {}\n", "parameters", "tokens",
                   "step", "MFU %", "days (50%)", "MWh", "cost", "loss", "layout");
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
        fmt::print("{:>12} {:>9} {:>10} {:>12.1f} {:>10.4g} {:>10.4g} {:>12} {:>10.3f}  {}\n",
                   human_count(a.parameters), human_count(r.tokens), human_days(a.step.mid),
                   a.chosen.prediction.mfu * 100, a.wall_p50.value() / 86400,
                   a.energy.site.mid.value() / 3.6e9,
                   a.cost().possible ? human_dollars(a.cost().total.mid.value()) : "-", a.learned.loss.mid,
                   describe(a.chosen.run));
      }
      if (o->json) fmt::print("{}\n", json{{"sizes", std::move(rows)}}.dump(2));
      return;
    }
    const auto points = sweep(request, {request.on}, *from, *to, sweep_options(*o));
    if (o->json) {
      for (const SweepPoint& p : points) rows.push_back(point_json(p));
      fmt::print("{}\n", json{{"scale", std::move(rows)}}.dump(2));
      return;
    }
    fmt::print("{:>14} {:>11} {:>7} {:>8} {:>11} {:>9} {:>9} {:>9} {:>12}  {:<22} {}\n", "accelerators",
               "step", "MFU %", "goodput", "days (50%)", "doubling", "site MW", "MWh", "cost", "what limits",
               "layout");
    for (const SweepPoint& p : points) {
      if (!p.assessment) {
        fmt::print("{:>14} {}\n", p.on, p.reason);
        continue;
      }
      const Assessment& a = *p.assessment;
      fmt::print("{:>14} {:>11} {:>7.1f} {:>7.1f}% {:>11.4g} {:>9} {:>9.3g} {:>9.4g} {:>12}  {:<22} {}\n",
                 p.on, human_days(a.step.mid), a.chosen.prediction.mfu * 100, a.goodput.mean_goodput * 100,
                 a.wall_p50.value() / 86400,
                 p.speedup_of_doubling > 0 ? fmt::format("{:.2f} x", p.speedup_of_doubling) : "-",
                 a.racks.site_mw, a.energy.site.mid.value() / 3.6e9,
                 a.cost().possible ? human_dollars(a.cost().total.mid.value()) : "-", p.bottleneck,
                 describe(a.chosen.run));
    }
  });
}

void add_plan_search(Command& plan) {
  auto* cmd = plan.add_subcommand("search", "Plans that no other beats in time, cost and energy together");
  auto o = add_plan_options(*cmd, true);
  auto from = std::make_shared<int64_t>(8), to = std::make_shared<int64_t>(16384);
  auto with = std::make_shared<std::vector<std::string>>();
  cmd->add_option("--from", *from, "Fewest accelerators")->capture_default_str();
  cmd->add_option("--to", *to, "Most accelerators; doubles in between")->capture_default_str();
  cmd->add_option("--with", *with, "More kinds of hardware: h200 (repeat)");
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
    fmt::print("{:<16} {:<12} {:>12} {:>12} {:>10}  {}\n", "hardware", "path", "days (50 %)", "cost", "MWh",
               "layout");
    for (const ParetoPoint& p : front)
      fmt::print("{:<16} {:<12} {:>12.4g} {:>12} {:>10.4g}  {}\n", p.on, to_string(p.cost->path), p.days,
                 human_dollars(p.dollars), p.mwh, describe(p.assessment->chosen.run));
    fmt::print("{} of {} clusters planned, {} layouts considered; {} plans stand\n", planned, points.size(),
               layouts, front.size());
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
    const auto row = [](const char* name, double x, double y, auto text) {
      fmt::print("{:<26} {:>14} {:>14} {:>9}\n", name, text(x), text(y),
                 x > 0 ? fmt::format("{:+.1f} %", (y / x - 1) * 100) : "");
    };
    const auto plain = [](double v) { return fmt::format("{:.4g}", v); };
    const auto days = [](double v) { return human_days(Seconds(v)); };
    fmt::print("{:<26} {:>14} {:>14} {:>9}\n", "", "as planned", "what if", "change");
    row("memory, GiB", in_gibibytes(a.chosen.prediction.memory.peak),
        in_gibibytes(b.chosen.prediction.memory.peak), plain);
    row("step", a.step.mid.value(), b.step.mid.value(), days);
    row("MFU, %", a.chosen.prediction.mfu * 100, b.chosen.prediction.mfu * 100, plain);
    row("time, 50 %", a.wall_p50.value(), b.wall_p50.value(), days);
    row("time, 99 %", a.wall_p99.value(), b.wall_p99.value(), days);
    row("goodput, %", a.goodput.mean_goodput * 100, b.goodput.mean_goodput * 100, plain);
    row("failures", a.goodput.failures.mid, b.goodput.failures.mid, plain);
    row("energy, MWh", a.energy.site.mid.value() / 3.6e9, b.energy.site.mid.value() / 3.6e9, plain);
    row("tCO2e", a.energy.tonnes_co2.mid, b.energy.tonnes_co2.mid, plain);
    row("site, MW", a.racks.site_mw, b.racks.site_mw, plain);
    if (a.cost().possible && b.cost().possible)
      row("money", a.cost().total.mid.value(), b.cost().total.mid.value(), human_dollars);
    row("loss, nats", a.learned.loss.mid, b.learned.loss.mid, plain);
    fmt::print("{:<26} {}\n{:<26} {}\n", "layout as planned", describe(a.chosen.run), "layout what if",
               describe(b.chosen.run));
    if (!b.fits) fmt::print("what if does not fit: {}\n", b.limits.empty() ? "memory" : b.limits[0].text);
    for (const std::string& w : b.warnings) fmt::print("beware  {}\n", w);
  });
}

}  // namespace stoker::cli
