#include <fmt/core.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/plan_options.h"
#include "cli/plan_screen.h"
#include "plan/assessment_json.h"
#include "plan/plan_report.h"

namespace stoker::cli {
namespace {

using namespace stoker::plan;

AssessOptions assess_options(const PlanOptions& o) {
  AssessOptions options;
  options.trials = o.trials;
  return options;
}

void run_plan(const PlanOptions& o, bool explain) {
  const Assessment a = assess(plan_request(o), assess_options(o));
  if (!o.html.empty()) {
    write_plan_report(io::real_file_system(), a, levers(a), o.html);
    if (!o.json) fmt::print(stderr, "wrote {}\n", o.html);
  }
  if (o.json) {
    fmt::print("{}\n", to_json(a).dump(2));
    return;
  }
  fmt::print("{}", plan_screen(a));
  if (explain) fmt::print("{}", plan_explanation(a));
}

void add_levers(Command& plan) {
  auto* cmd = plan.add_subcommand("levers",
                                  "What each known saving would change: precision, overlap, power caps ...");
  auto o = add_plan_options(*cmd, true);
  cmd->footer("Example: stoker plan levers recipes/plan/llama3_8b_h100.toml");
  cmd->callback([o] {
    const Assessment a = assess(plan_request(*o), assess_options(*o));
    const std::vector<Lever> found = levers(a);
    if (o->json) {
      nlohmann::json rows = nlohmann::json::array();
      for (const Lever& lever : found) rows.push_back(to_json(lever));
      fmt::print("{}\n", nlohmann::json{{"plan", to_json(a)}, {"levers", std::move(rows)}}.dump(2));
      return;
    }
    fmt::print("{}", lever_table(a, found));
  });
}

void add_figures(Command& plan) {
  auto* cmd = plan.add_subcommand("figures", "Every assumed figure: range, unit, kind, date and source");
  auto as_json = std::make_shared<bool>(false);
  cmd->add_flag("--json", *as_json, "Print JSON (docs/json.md)");
  cmd->footer("Example: stoker plan figures --json");
  cmd->callback([as_json] {
    const FigureBook book = FigureBook::built_in();
    nlohmann::json rows = nlohmann::json::array();
    for (const auto& [key, f] : book.all()) {
      if (*as_json)
        rows.push_back({{"key", key},
                        {"low", f.value.low},
                        {"mid", f.value.mid},
                        {"high", f.value.high},
                        {"unit", f.unit},
                        {"kind", f.kind},
                        {"date", f.date},
                        {"source", f.source}});
      else
        fmt::print("{:<44} {:>9.6g} {:>9.6g} {:>9.6g} {:<44.44} {:<11} {} {}\n", key, f.value.low,
                   f.value.mid, f.value.high, f.unit, f.kind, f.date, f.source);
    }
    if (*as_json) fmt::print("{}\n", nlohmann::json{{"figures", std::move(rows)}}.dump(2));
  });
}

}  // namespace

void add_plan(Command& app) {
  auto* plan = app.add_subcommand("plan", "Know before you spend: memory, time, failures, energy and money");
  plan->require_subcommand(0, 1);
  auto o = add_plan_options(*plan, false);
  auto explain = std::make_shared<bool>(false);
  plan->add_flag("--explain", *explain, "Break every number down to its terms and sources");
  plan->add_option("--html", o->html, "Write a self-contained page with charts to this file");
  plan->footer(
      "Examples:\n  stoker plan recipes/plan/llama3_8b_h100.toml\n  stoker plan llama3-70b --on h100:1024 "
      "--tokens 15e12 --explain\n"
      "  stoker plan compare recipes/plan/gpt3_175b_a100.toml --with h100:1024\n"
      "  stoker plan whatif plan.toml --set run.precision=fp8\nAll settings: docs/planner.md");
  add_plan_compare(*plan);
  add_plan_scale(*plan);
  add_plan_search(*plan);
  add_plan_whatif(*plan);
  add_plan_calibrate(*plan);
  add_plan_check(*plan);
  add_levers(*plan);
  add_figures(*plan);
  add_plan_validate(*plan);
  add_plan_validate_energy(*plan);
  add_plan_validate_ops(*plan);
  add_plan_validate_failures(*plan);
  add_plan_fit(*plan);
  plan->callback([plan, o, explain] {
    if (!plan->has_subcommand()) run_plan(*o, *explain);
  });
}

}  // namespace stoker::cli
