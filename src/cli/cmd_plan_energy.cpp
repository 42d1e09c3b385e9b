#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/plan_options.h"
#include "plan/assess.h"
#include "plan/catalog.h"
#include "plan/catalog_files.h"
#include "plan/published_energy.h"

namespace stoker::cli {
namespace {

using namespace stoker::plan;
using nlohmann::json;

constexpr std::string_view kEnergyTable = "a CSV file of published energy (docs/planner.md)";

std::optional<double> maximum_watts(std::string_view accelerator) {
  std::string name(accelerator);
  // Published tables say "B200-SXM-180GB" and "TPU v3".
  for (;;) {
    if (const CatalogAccelerator* a = lookup_accelerator(name))
      return a->spec.power.value() > 0 ? std::optional(a->spec.power.value()) : std::nullopt;
    const size_t cut = name.rfind('-');
    if (cut == std::string::npos) break;
    name.resize(cut);
  }
  return std::nullopt;
}

// "Llama 3.1 405B" -> the catalog's model; a llama-shaped one of that many parameters where there is none.
HoursEstimate planned_hours(std::string_view run, double parameters_B, double tokens_B,
                            std::string_view accelerator, std::optional<double> accelerators) {
  const CatalogAccelerator* hardware = lookup_accelerator(accelerator);
  if (!hardware) return {std::nullopt, fmt::format("no accelerator '{}' in the catalog", accelerator)};
  PlanRequest request;
  request.figures = FigureBook::built_in();
  // "DeepSeek-V3 671B (37B active)": as much of the name as the catalog knows, word by word from the end.
  const CatalogModel* model = lookup_model(run);
  for (size_t cut = run.rfind(' '); !model && cut != std::string_view::npos && cut > 0;
       cut = run.rfind(' ', cut - 1))
    model = lookup_model(run.substr(0, cut));
  if (!model && run.find("active") != std::string_view::npos)
    return {std::nullopt, "a mixture of experts whose shape is not in the catalog"};
  std::string note;
  if (model) {
    request.run.model = model->spec;
    request.score_scale = model->score_scale;
    request.scan_elements = model->scan_elements;
    if (model->precision) request.run.precision = *model->precision;
  } else {
    request.run.model = shape_for_parameters(parameters_B * 1e9);
    note = "llama-shaped model; ";
  }
  // Where the count is not published: enough that the state fits several times over, as such runs have.
  int64_t n = static_cast<int64_t>(accelerators.value_or(0));
  if (n < 1) {
    const double state = parameters_B * 1e9 * 18, memory = hardware->spec.memory.value();
    n = 8;
    while (static_cast<double>(n) * memory < 20 * state) n *= 2;
    note += fmt::format("{} accelerators assumed; ", n);
  }
  request.hardware = make_hardware(*hardware, n);
  request.run.batch.sequence_length = std::clamp<int64_t>(request.run.model.max_positions, 2048, 8192);
  request.run.batch.global_batch = std::max<int64_t>(n, 4194304 / request.run.batch.sequence_length);
  request.run.batch.global_batch = (request.run.batch.global_batch + n - 1) / n * n;
  try {
    request.tokens = tokens_B * 1e9;
    const LayoutChoice choice = choose_layouts(request, 1);
    if (choice.best.empty()) return {std::nullopt, note + "no layout fits its memory"};
    AssessOptions options;
    options.trials = 100;
    options.all_paths = false;
    const Assessment a = assess_with(request, choice, options);
    return {a.wall.mid.value() / 3600 * static_cast<double>(n),
            fmt::format("{}{}; MFU {:.0f} %, goodput {:.0f} %", note, describe(a.chosen.run),
                        a.chosen.prediction.mfu * 100, a.goodput.mean_goodput * 100)};
  } catch (const Error& e) {
    return {std::nullopt, note + e.what()};
  }
}

json to_json(const EnergyValidation& v) {
  json rows = json::array();
  for (const EnergyCheck& c : v.checks) {
    json row{{"run", c.run}, {"quantity", c.quantity}};
    if (c.published > 0) row["published"] = c.published;
    if (c.predicted) {
      row["predicted"] = *c.predicted;
      row["error"] = c.error;
      row["inputs_printed"] = c.inputs_printed;
      row["how"] = c.how;
    } else {
      row["reason"] = c.how;
    }
    rows.push_back(std::move(row));
  }
  return {{"rows", std::move(rows)},
          {"predicted", v.predicted},
          {"median_abs_error", v.median_abs_error},
          {"p90_abs_error", v.p90_abs_error},
          {"inputs_printed", v.printed},
          {"inputs_printed_within_10_percent", v.printed_within_10_percent},
          {"inputs_printed_median_abs_error", v.printed_median_abs_error},
          {"inputs_printed_max_abs_error", v.printed_max_abs_error}};
}

}  // namespace

void add_plan_validate_energy(Command& plan) {
  auto* cmd = plan.add_subcommand("validate-energy",
                                  "Work published energy, hours, emissions and costs out again and compare");
  auto files = std::make_shared<std::vector<std::string>>();
  auto as_json = std::make_shared<bool>(false);
  cmd->add_option("files", *files, "CSV files of published runs or of measured node power")->required();
  cmd->add_flag("--json", *as_json, "Print JSON (docs/json.md)");
  cmd->footer("Example: stoker plan validate-energy energy.csv mlperf_power.csv");
  cmd->callback([files, as_json] {
    const FigureBook figures = FigureBook::built_in();
    std::vector<EnergyCheck> checks;
    for (const std::string& file : *files) {
      const CsvTable table(file, read_text(file, kEnergyTable));
      std::vector<EnergyCheck> more = check_energy(table, figures, maximum_watts, planned_hours);
      checks.insert(checks.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
    }
    const EnergyValidation v = summarise(std::move(checks));
    if (*as_json) {
      fmt::print("{}\n", to_json(v).dump(2));
      return;
    }
    fmt::print("{:<44} {:<26} {:>12} {:>12} {:>8}  {}\n", "run", "quantity", "published", "predicted",
               "error", "how");
    for (const EnergyCheck& c : v.checks) {
      if (c.predicted)
        fmt::print("{:<44.44} {:<26} {:>12.6g} {:>12.6g} {:>+7.1f}% {} {}\n", c.run, c.quantity, c.published,
                   *c.predicted, c.error * 100, c.inputs_printed ? ' ' : '*', c.how);
      else
        fmt::print("{:<44.44} {:<26} {:>12.6g} {:>12} {:>8}   {}\n", c.run, c.quantity, c.published, "-", "-",
                   c.how);
    }
    fmt::print(
        "\n* an input that the source does not print was assumed, or the planner's own model was used\n"
        "{} quantities, {} predicted: median error {:.1f} %, 90th percentile {:.1f} %\n"
        "{} with every input printed: {} within 10 %, median {:.1f} %, worst {:.1f} %\n",
        v.checks.size(), v.predicted, v.median_abs_error * 100, v.p90_abs_error * 100, v.printed,
        v.printed_within_10_percent, v.printed_median_abs_error * 100, v.printed_max_abs_error * 100);
  });
}

}  // namespace stoker::cli
