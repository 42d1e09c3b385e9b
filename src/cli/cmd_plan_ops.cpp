#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/json_number.h"
#include "cli/plan_options.h"
#include "plan/catalog_files.h"
#include "plan/published_ops.h"

namespace stoker::cli {
namespace {

using namespace stoker::plan;
using nlohmann::json;

constexpr std::string_view kOpTable = "a CSV file of measured operations (docs/planner-model.md)";

}  // namespace

void add_plan_validate_ops(Command& plan) {
  auto* cmd = plan.add_subcommand("validate-ops",
                                  "Compare measured matrix products and collectives with the op model");
  auto files = std::make_shared<std::vector<std::string>>();
  auto as_json = std::make_shared<bool>(false);
  cmd->add_option("files", *files, "CSV files of measured products or collectives")->required();
  cmd->add_flag("--json", *as_json, "Print JSON (docs/json.md)");
  cmd->footer("Example: stoker plan validate-ops gemm.csv comm.csv");
  cmd->callback([files, as_json] {
    json out = json::array();
    for (const std::string& file : *files) {
      const CsvTable table(file, read_text(file, kOpTable));
      const std::vector<OpCheck> checks =
          table.has("TFLOPs") ? check_products(table) : check_collectives(table);
      const OpSummary s = summarise(checks);
      if (*as_json) {
        json rows = json::array();
        for (const OpCheck& c : checks) {
          json row{{"system", c.system}, {"what", c.what}, {"measured_s", c.measured_s}};
          if (c.reason.empty()) {
            row["predicted_s"] = c.predicted_s, row["error"] = c.error;
            row["sets_a_rate"] = c.sets_a_rate;
          } else {
            row["reason"] = c.reason;
          }
          rows.push_back(std::move(row));
        }
        out.push_back({{"file", file},
                       {"rows", s.rows},
                       {"predicted", s.predicted},
                       {"median_abs_error", number_or_null(s.median)},
                       {"p90_abs_error", number_or_null(s.p90)},
                       {"results", std::move(rows)}});
        continue;
      }
      fmt::print("{}\n{:<34} {:<46} {:>11} {:>11} {:>8}\n", file, "system", "operation", "measured",
                 "predicted", "error");
      for (const OpCheck& c : checks) {
        if (!c.reason.empty())
          fmt::print("{:<34.34} {:<46.46} {:>8.1f} us   {}\n", c.system, c.what, c.measured_s * 1e6,
                     c.reason);
        else
          fmt::print("{:<34.34} {:<46.46} {:>8.1f} us {:>8.1f} us {:>+7.1f}%{}\n", c.system, c.what,
                     c.measured_s * 1e6, c.predicted_s * 1e6, 100 * c.error,
                     c.sets_a_rate ? "  sets the rate" : "");
      }
      if (s.predicted)
        fmt::print("{} rows, {} predicted: median error {:.1f} %, 90th percentile {:.1f} %\n\n", s.rows,
                   s.predicted, 100 * s.median, 100 * s.p90);
      else fmt::print("{} rows, none predicted\n\n", s.rows);
    }
    if (*as_json) fmt::print("{}\n", out.dump(1));
  });
}

}  // namespace stoker::cli
