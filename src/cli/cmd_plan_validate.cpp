#include <fmt/core.h>

#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/json_number.h"
#include "cli/plan_options.h"
#include "plan/catalog_files.h"
#include "plan/error_bands.h"
#include "plan/fit.h"
#include "plan/validate.h"

namespace stoker::cli {
namespace {

using namespace stoker::plan;
using nlohmann::json;

constexpr std::string_view kRunTable = "a CSV file of published runs (docs/planner-model.md)";

void write_text(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  if (!(out << text) || !out.flush())
    fail(ErrorKind::kStorage, "cannot write {}: check the directory and its free space", path);
}

std::vector<PublishedRun> read_all(const std::vector<std::string>& files) {
  std::vector<PublishedRun> runs;
  for (const std::string& file : files) {
    std::vector<PublishedRun> more = read_published_runs(CsvTable(file, read_text(file, kRunTable)), file);
    runs.insert(runs.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
  return runs;
}

EfficiencyTable table_from(const std::string& path) {
  return path.empty() ? fitted_efficiency() : EfficiencyTable::parse(read_text(path, kRunTable), path);
}

json to_json(const ErrorSummary& s) {
  json j{{"rows", s.rows}, {"compared", s.compared}};
  for (const auto& [key, value] : {std::pair{"median_abs_error", s.median},
                                   {"p90_abs_error", s.p90},
                                   {"mean_abs_error", s.mean},
                                   {"median_log_bias", s.bias}})
    j[key] = s.compared ? number_or_null(value) : json(nullptr);
  return j;
}

json to_json(const RowResult& r) {
  const PublishedRun& run = *r.run;
  json j{{"id", run.id}, {"source", run.source_group}, {"file", run.file}};
  if (!run.input.engine.empty()) j["engine"] = run.input.engine;
  if (!run.input.release.empty()) j["release"] = run.input.release;
  j["measured"] = run.metric == Metric::kNone ? json(nullptr) : json(run.measured);
  if (run.metric != Metric::kNone) j["metric"] = to_string(run.metric);
  if (r.compared) {
    j["predicted"] = r.predicted, j["error"] = r.error;
    for (int t = 0; t < kStepTerms; ++t)
      if (const double s = r.step.terms[static_cast<size_t>(t)].value(); s > 0)
        j["predicted_terms_s"][to_string(static_cast<StepTerm>(t))] = s;
  }
  if (r.fit_judged) {
    j["outcome"] = run.out_of_memory ? "out of memory" : "ran";
    j["predicted_outcome"] = r.predicted_oom ? "out of memory" : "ran";
    j["predicted_peak_gib"] = r.predicted_peak_gb;
    for (int k = 0; k < kFootprintKinds; ++k)
      j["predicted_memory_gib"][to_string(static_cast<FootprintKind>(k))] =
          r.memory_gib[static_cast<size_t>(k)];
  }
  if (r.memory_compared) j["measured_peak_gib"] = *run.peak_memory_gb, j["memory_error"] = r.memory_error;
  if (!r.reason.empty()) j["reason"] = r.reason;
  if (!run.assumed.empty()) j["assumed"] = run.assumed;
  return j;
}

json to_json(const Validation& v) {
  json j;
  size_t predicted = 0;
  for (const RowResult& r : v.rows) predicted += r.compared || r.fit_judged;
  j["rows"] = v.rows.size();
  j["predicted"] = predicted;
  j["compared"] = v.all.compared;
  j["median_abs_error"] = v.all.compared ? number_or_null(v.all.median) : json(nullptr);
  j["p90_abs_error"] = v.all.compared ? number_or_null(v.all.p90) : json(nullptr);
  j["equal_sources"] = to_json(v.equal_sources);
  j["memory"] = to_json(v.memory);
  for (const auto& [name, s] : v.by_source) j["by_source"][name] = to_json(s);
  for (const auto& [name, s] : v.by_hardware) j["by_hardware"][name] = to_json(s);
  for (const auto& [name, s] : v.by_kind) j["by_kind"][name] = to_json(s);
  j["oom_balanced_accuracy"] = number_or_null(v.oom_balanced_accuracy);
  j["oom"] = {{"ran", v.ran},
              {"ran_called_oom", v.ran_called_oom},
              {"failed", v.failed},
              {"failed_called_oom", v.failed_called_oom}};
  j["results"] = json::array();
  for (const RowResult& r : v.rows) j["results"].push_back(to_json(r));
  return j;
}

void print_table(const char* title, const std::map<std::string, ErrorSummary>& rows) {
  fmt::print("\n{:<20} {:>6} {:>9} {:>8} {:>8} {:>8}\n", title, "rows", "compared", "median", "90 %", "bias");
  for (const auto& [name, s] : rows) {
    if (s.compared)
      fmt::print("{:<20} {:>6} {:>9} {:>7.1f}% {:>7.1f}% {:>+7.1f}%\n", name, s.rows, s.compared,
                 100 * s.median, 100 * s.p90, 100 * std::expm1(s.bias));
    else fmt::print("{:<20} {:>6} {:>9}\n", name, s.rows, 0);
  }
}

void print_rows(const Validation& v) {
  fmt::print("{:<24} {:>28} {:>12} {:>12} {:>8}  {}\n", "row", "metric", "measured", "predicted", "error",
             "memory");
  for (const RowResult& r : v.rows) {
    std::string memory;
    if (r.memory_compared)
      memory = fmt::format("{:.1f} GiB, predicted {:.1f}", *r.run->peak_memory_gb, r.predicted_peak_gb);
    else if (r.run->out_of_memory)
      memory = fmt::format("out of memory, predicted {} ({:.1f} GiB)", r.predicted_oom ? "so" : "to fit",
                           r.predicted_peak_gb);
    else if (r.predicted_oom)
      memory = fmt::format("ran, predicted out of memory ({:.1f} GiB)", r.predicted_peak_gb);
    if (r.compared)
      fmt::print("{:<24} {:>28} {:>12.5g} {:>12.5g} {:>7.1f}%  {}\n", r.run->id, to_string(r.run->metric),
                 r.run->measured, r.predicted, 100 * r.error, memory);
    else fmt::print("{:<24} {:>28}  {} {}\n", r.run->id, "not compared", r.reason, memory);
  }
}

void print(const Validation& v) {
  print_rows(v);
  print_table("source", v.by_source);
  print_table("hardware", v.by_hardware);
  print_table("kind", v.by_kind);
  fmt::print("\n{} rows, {} compared", v.rows.size(), v.all.compared);
  if (v.all.compared)
    fmt::print(
        ": median error {:.1f} %, 90th percentile {:.1f} %\nsources weighted equally: median {:.1f} %, 90th "
        "percentile {:.1f} %",
        100 * v.all.median, 100 * v.all.p90, 100 * v.equal_sources.median, 100 * v.equal_sources.p90);
  fmt::print("\n");
  if (v.memory.compared)
    fmt::print("peak memory of {} rows: median error {:.1f} %, 90th percentile {:.1f} %\n", v.memory.compared,
               100 * v.memory.median, 100 * v.memory.p90);
  if (v.ran + v.failed)
    fmt::print(
        "out of memory: {} of {} that failed foreseen, {} of {} that ran called impossible; balanced "
        "accuracy {:.1f} %\n",
        v.failed_called_oom, v.failed, v.ran_called_oom, v.ran, 100 * v.oom_balanced_accuracy);
}

Validation held_out(const std::vector<PublishedRun>& runs, const std::vector<HeldOutFold>& folds,
                    const EfficiencyTable& start, const FitOptions& options) {
  Validation joined;
  std::vector<RowResult> results(runs.size());
  // Every row is judged by a table fitted without its fold; the summary is then taken over all of them.
  for (const HeldOutFold& fold : folds) {
    std::vector<bool> out(runs.size(), false);
    for (size_t i : fold.held_out) out[i] = true;
    std::vector<PublishedRun> seen;
    for (size_t i = 0; i < runs.size(); ++i)
      if (!out[i]) seen.push_back(runs[i]);
    const EfficiencyTable table = fit_memory(seen, fit_step_time(seen, start, options), options);
    const Validation v = validate_runs(runs, table);
    for (size_t i : fold.held_out) results[i] = v.rows[i];
  }
  return summarise_results(std::move(results));
}

}  // namespace

void add_plan_validate(Command& plan) {
  struct Flags {
    std::vector<std::string> files;
    std::string efficiency;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  auto* cmd = plan.add_subcommand("validate", "Predict published runs and say how wrong the predictions are");
  cmd->add_option("files", flags->files, "CSV files of published runs, and of runs that failed")->required();
  cmd->add_option("--efficiency", flags->efficiency, "Another table of efficiencies than the built-in one");
  cmd->add_flag("--json", flags->json, "Print JSON (docs/json.md)");
  cmd->footer("Example:\n  stoker plan validate runs.csv oom.csv --json");
  cmd->callback([flags] {
    const std::vector<PublishedRun> runs = read_all(flags->files);
    const Validation v = validate_runs(runs, table_from(flags->efficiency));
    if (flags->json) fmt::print("{}\n", to_json(v).dump(1));
    else print(v);
  });
}

void add_plan_fit(Command& plan) {
  struct Flags {
    std::vector<std::string> files;
    std::string out, start, report, bands;
    int folds = 5;
    bool sources = false, models = false;
    FitOptions options;
  };
  auto flags = std::make_shared<Flags>();
  auto* cmd = plan.add_subcommand("fit", "Fit the planner's efficiencies to published runs");
  cmd->add_option("files", flags->files, "CSV files of published runs")->required();
  cmd->add_option("--out", flags->out, "Write the fitted table here");
  cmd->add_option("--bands", flags->bands,
                  "Write the error bands of kinds of run here; needs --folds and --leave-sources-out");
  cmd->add_option("--report", flags->report,
                  "Write every row's held-out prediction here, as `plan validate --json` does");
  cmd->add_option("--start", flags->start, "Start from this table instead of the priors");
  cmd->add_option("--folds", flags->folds, "Held-out folds over configurations; 0: none")->range(0, 50);
  cmd->add_option("--iterations", flags->options.iterations, "Most steps of the fit")->range(0, 1000);
  cmd->add_flag("--leave-sources-out", flags->sources, "Also hold out every source in turn");
  cmd->add_flag("--leave-models-out", flags->models,
                "Also hold out all runs of a model on a hardware family together");
  cmd->footer("Example:\n  stoker plan fit runs.csv oom.csv --out catalog/efficiency.csv");
  cmd->callback([flags] {
    if (!flags->bands.empty() && (flags->folds < 2 || !flags->sources))
      fail(ErrorKind::kUsage, "--bands needs both kinds of held-out runs: add --folds 5 --leave-sources-out");
    const std::vector<PublishedRun> runs = read_all(flags->files);
    const EfficiencyTable start =
        flags->start.empty() ? EfficiencyTable()
                             : EfficiencyTable::parse(read_text(flags->start, kRunTable), flags->start);
    const EfficiencyTable table =
        fit_memory(runs, fit_step_time(runs, start, flags->options), flags->options);
    const Validation fitted = validate_runs(runs, table);
    json reports;
    Validation configurations, sources;
    auto line = [](const char* what, const Validation& v) {
      fmt::print(
          "{:<34} median {:5.1f} %  90 % {:5.1f} %   sources equal: median {:5.1f} %  90 % {:5.1f} %\n", what,
          100 * v.all.median, 100 * v.all.p90, 100 * v.equal_sources.median, 100 * v.equal_sources.p90);
      fmt::print("{:<34} median {:5.1f} %  90 % {:5.1f} %   out of memory: balanced accuracy {:.1f} %\n",
                 "  peak memory", 100 * v.memory.median, 100 * v.memory.p90, 100 * v.oom_balanced_accuracy);
    };
    line("in sample", fitted);
    if (flags->folds > 1) {
      for (bool whole_models : {false, true}) {
        if (whole_models && !flags->models) continue;
        const Validation v =
            held_out(runs, group_folds(runs, flags->folds, whole_models), start, flags->options);
        if (!whole_models) configurations = v;
        line(whole_models ? "held-out models on hardware" : "held-out configurations", v);
        print_table("held-out by source", v.by_source);
        print_table("held-out by hardware", v.by_hardware);
        print_table("held-out by kind", v.by_kind);
        if (!flags->report.empty()) reports[whole_models ? "models" : "configurations"] = to_json(v);
      }
    }
    if (flags->sources) {
      const Validation v = held_out(runs, source_folds(runs), start, flags->options);
      line("held-out sources", v);
      sources = v;
      print_table("held-out sources", v.by_source);
      if (!flags->report.empty()) reports["sources"] = to_json(v);
    }
    if (!flags->bands.empty())
      write_text(flags->bands, error_bands_csv(error_bands(configurations, sources)));
    if (!flags->report.empty()) write_text(flags->report, reports.dump(1));
    if (!flags->out.empty()) write_text(flags->out, table.to_csv());
  });
}

}  // namespace stoker::cli
