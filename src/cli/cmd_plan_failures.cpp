#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/plan_options.h"
#include "plan/catalog_files.h"
#include "plan/published_failures.h"

namespace stoker::cli {
namespace {

using namespace stoker::plan;
using nlohmann::json;

constexpr std::string_view kFailureTable = "a CSV file of published failures (docs/planner.md)";

}  // namespace

void add_plan_validate_failures(Command& plan) {
  auto* cmd = plan.add_subcommand("validate-failures",
                                  "Compare published failure rates and goodput with the failure model");
  auto file = std::make_shared<std::string>();
  auto as_json = std::make_shared<bool>(false);
  cmd->add_option("file", *file, "CSV file of published failure statistics")->required();
  cmd->add_flag("--json", *as_json, "Print JSON (docs/json.md)");
  cmd->footer("Example: stoker plan validate-failures failures.csv");
  cmd->callback([file, as_json] {
    const CsvTable table(*file, read_text(*file, kFailureTable));
    size_t predicted = 0, in_band = 0;
    json rows = json::array();
    if (!*as_json)
      fmt::print("{:<24} {:<38} {:>10} {:>9} {:>22}  {}\n", "run", "quantity", "published", "predicted",
                 "nine of ten clusters", "unit");
    for (const FailureCheck& c : check_failures(table)) {
      predicted += c.reason.empty(), in_band += c.in_band;
      if (*as_json) {
        json row{{"run", c.run}, {"quantity", c.quantity}, {"unit", c.unit}};
        if (!c.published_text.empty()) row["published"] = c.published_text;
        if (c.reason.empty()) {
          row["predicted"] = {{"low", c.predicted.low}, {"mid", c.predicted.mid}, {"high", c.predicted.high}};
          row["in_band"] = c.in_band, row["own_log"] = c.own_log;
        } else {
          row["reason"] = c.reason;
        }
        rows.push_back(std::move(row));
        continue;
      }
      if (!c.reason.empty())
        fmt::print("{:<24.24} {:<38.38} {:>10.10} {}\n", c.run, c.quantity, c.published_text, c.reason);
      else
        fmt::print("{:<24.24} {:<38.38} {:>10.10} {:>9.3g} {:>22}  {}{}\n", c.run, c.quantity,
                   c.published_text, c.predicted.mid,
                   fmt::format("{:.3g} to {:.3g}{}", c.predicted.low, c.predicted.high,
                               c.in_band ? "" : ", OUTSIDE"),
                   c.unit, c.own_log ? " (the rates' own log)" : "");
    }
    if (*as_json)
      fmt::print("{}\n",
                 json{{"rows", std::move(rows)}, {"predicted", predicted}, {"in_band", in_band}}.dump(1));
    else fmt::print("\n{} predicted, {} inside the band\n", predicted, in_band);
  });
}

}  // namespace stoker::cli
