// plan check: the plan against a run, error by term.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/median.h"
#include "cli/command.h"
#include "cli/json_number.h"
#include "cli/plan_options.h"
#include "cli/plan_screen.h"
#include "dash/run_log.h"
#include "dash/run_report.h"
#include "io/file_system.h"
#include "plan/assessment_json.h"
#include "plan/catalog.h"
#include "spec/parameter_table.h"
#include "train/memory_plan.h"
#include "train/recipe.h"

namespace stoker::cli {
namespace {

using namespace stoker::plan;
using nlohmann::json;

// The phases that runs record, and the predicted terms that they hold.
enum class Phase { kCompute, kCommunication, kOptimizer, kOther };

Phase phase_of(StepTerm term) {
  switch (term) {
    case StepTerm::kTensorComm:
    case StepTerm::kContextComm:
    case StepTerm::kExpertComm:
    case StepTerm::kPipelineComm:
    case StepTerm::kDataComm:
    case StepTerm::kBubble:
    case StepTerm::kStragglers:
      return Phase::kCommunication;
    case StepTerm::kOptimizer:
      return Phase::kOptimizer;
    case StepTerm::kFixed:
      return Phase::kOther;
    default:
      return Phase::kCompute;
  }
}

Phase phase_of(const std::string& name) {
  if (name.find("optim") != std::string::npos) return Phase::kOptimizer;
  if (name.find("comm") != std::string::npos || name.find("wait") != std::string::npos)
    return Phase::kCommunication;
  if (name.find("forward") != std::string::npos || name.find("backward") != std::string::npos)
    return Phase::kCompute;
  return Phase::kOther;
}

struct Term {
  const char* name;
  double planned, measured;
};

// Steps left out: the first ones warm caches up and compile kernels.
size_t warm_up(size_t steps) { return steps > 10 ? std::max<size_t>(2, steps / 20) : steps > 2 ? 1 : 0; }

double error_of(const Term& t) { return t.planned / t.measured - 1; }

void print_terms(const std::vector<Term>& terms) {
  fmt::print("{:<30} {:>12} {:>12} {:>9}\n", "", "planned", "measured", "error");
  for (const Term& t : terms)
    if (std::isfinite(t.measured))
      fmt::print("{:<30} {:>12.4g} {:>12.4g} {:>9}\n", t.name, t.planned, t.measured,
                 t.measured > 0 ? fmt::format("{:+.1f} %", error_of(t) * 100) : "");
}

json terms_json(const std::vector<Term>& terms) {
  json rows = json::array();
  for (const Term& t : terms)
    rows.push_back({{"name", t.name},
                    {"planned", number_or_null(t.planned)},
                    {"measured", number_or_null(t.measured)},
                    {"error", t.measured > 0 ? number_or_null(error_of(t)) : json(nullptr)}});
  return rows;
}

// The last number of that key in the run's log; NaN where no line has it.
double last_number(const std::string& run, const std::string& key) {
  std::ifstream in(run + "/log.jsonl", std::ios::binary);
  double value = std::nan("");
  for (std::string line; std::getline(in, line);) {
    if (line.find(key) == std::string::npos) continue;
    const json event = json::parse(line, nullptr, false);
    if (event.is_object() && event.contains(key) && event[key].is_number()) value = event[key].get<double>();
  }
  return value;
}

// A run of Stoker itself against what its recipe says: the peak is the one that the run measured for itself.
void check_recipe(const std::string& run, const std::string& path, const PlanOptions& o) {
  const dash::RunLog log = dash::read_run_log(io::real_file_system(), run);
  const train::Recipe recipe = train::load_recipe(path, o.settings);
  const double parameters = last_number(run, "parameters"),
               own = static_cast<double>(parameter_count(recipe.model));
  if (std::isfinite(parameters) && parameters != own)
    fail(ErrorKind::kUsage,
         "{} describes {:.0f} parameters, {} trained {:.0f}: give the recipe that it ran, with its "
         "model.vocab",
         path, own, run, parameters);
  PlanInput in;
  in.engine = "stoker";
  in.hardware = parse_hardware(o.on.empty() ? "cpu:1" : o.on);
  AcceleratorSpec& a = in.hardware.accelerator;
  const double peak = last_number(run, "peak_gflops") * 1e9;
  if (peak > 0) (recipe.precision == Precision::kFp32 ? a.fp32 : a.bf16) = FlopsPerSecond(peak);
  in.run.model = recipe.model;
  in.run.batch = {recipe.global_batch, recipe.micro_batch, recipe.sequence_length};
  in.run.precision = recipe.precision;
  in.run.recompute = recipe.recompute;
  const Prediction planned = predict(in);
  const size_t skip = warm_up(log.steps.size());
  std::vector<double> times;
  for (size_t i = skip; i < log.steps.size(); ++i) times.push_back(log.steps[i].time_s);
  const double step = median(times);
  const double gib = 1073741824.0;
  const std::vector<Term> terms{{"step, s", planned.step.total.value(), step},
                                {"tokens per second", planned.tokens_per_second.value(),
                                 static_cast<double>(in.run.batch.tokens()) / step},
                                {"memory, GiB", static_cast<double>(train::memory_plan(recipe).total()) / gib,
                                 last_number(run, "peak_bytes") / gib}};
  if (o.json) {
    fmt::print("{}\n", json{{"terms", terms_json(terms)}, {"steps", log.steps.size()}}.dump(2));
    return;
  }
  print_terms(terms);
  fmt::print("{} steps, the first {} left out; peak {:.0f} GFLOP/s as the run measured it\n",
             log.steps.size(), skip, peak * 1e-9);
}

}  // namespace

void add_plan_check(Command& plan) {
  auto* cmd = plan.add_subcommand("check", "A plan against a finished or running Stoker run, error by term");
  auto run = std::make_shared<std::string>();
  cmd->add_option("run", *run, "Run directory (holds log.jsonl)")->required()->type_name("RUN");
  auto recipe = std::make_shared<std::string>();
  cmd->add_option("--recipe", *recipe,
                  "The run's own recipe in place of a plan: one worker on --on (else cpu)")
      ->type_name("FILE");
  auto o = add_plan_options(*cmd, false);
  cmd->footer(
      "Examples:\n  stoker plan check runs/demo plan.toml\n  stoker plan check runs/demo --recipe "
      "recipe.toml\n"
      "  STOKER_CATALOG=my-catalog stoker plan check runs/demo --recipe recipe.toml --on this-machine");
  cmd->callback([run, recipe, o] {
    if (!recipe->empty()) return check_recipe(*run, *recipe, *o);
    io::FileSystem& fs = io::real_file_system();
    const dash::RunLog log = dash::read_run_log(fs, *run);
    const std::string beside = *run + "/plan.toml";
    if (o->file.empty() && std::filesystem::exists(beside)) o->file = beside;
    if (o->file.empty())
      fail(ErrorKind::kUsage, "no plan to check: give one after the run, or put plan.toml into {}", *run);
    const Assessment a = assess(plan_request(*o));
    const size_t skip = warm_up(log.steps.size());
    std::vector<double> times, rates, mfus;
    for (size_t i = skip; i < log.steps.size(); ++i) {
      times.push_back(log.steps[i].time_s);
      rates.push_back(log.steps[i].tokens_per_s);
      mfus.push_back(log.steps[i].mfu);
    }
    const double step = median(times), rate = median(rates), mfu = median(mfus);
    if (!std::isfinite(step) && !std::isfinite(rate))
      fail(ErrorKind::kData, "{}: no step states time_s or tokens_per_s, so there is nothing to compare",
           *run);
    double planned[4] = {}, measured[4] = {};
    bool phases[4] = {};
    for (int t = 0; t < kStepTerms; ++t)
      planned[static_cast<size_t>(phase_of(static_cast<StepTerm>(t)))] +=
          a.chosen.prediction.step.terms[static_cast<size_t>(t)].value();
    std::vector<std::pair<std::string, double>> anatomy;
    double sum = 0;
    for (const auto& [name, values] : log.anatomy) {
      const double value =
          median({values.begin() + static_cast<ptrdiff_t>(std::min(skip, values.size())), values.end()});
      if (!std::isfinite(value)) continue;
      anatomy.emplace_back(name, value);
      sum += value;
    }
    // Logs hold shares of a step or seconds: they add up to one or to the step.
    const double scale = std::isfinite(step) && std::abs(sum - 1) < std::abs(sum - step) ? step : 1;
    for (const auto& [name, value] : anatomy) {
      measured[static_cast<size_t>(phase_of(name))] += value * scale;
      phases[static_cast<size_t>(phase_of(name))] = true;
    }
    std::vector<Term> terms{
        {"step, s", a.step.mid.value(), step},
        {"tokens per second", static_cast<double>(a.chosen.run.batch.tokens()) / a.step.mid.value(), rate},
        {"MFU", a.chosen.prediction.mfu, mfu}};
    const char* names[] = {"compute, s", "communication and waiting, s", "optimizer, s", "other, s"};
    for (size_t i = 0; i < 4; ++i)
      if (phases[i]) terms.push_back({names[i], planned[i], measured[i]});
    if (o->json) {
      fmt::print(
          "{}\n",
          json{{"plan", to_json(a)}, {"terms", terms_json(terms)}, {"steps", log.steps.size()}}.dump(2));
      return;
    }
    print_terms(terms);
    fmt::print("{} steps, the first {} left out; layout planned: {}\n", log.steps.size(), skip,
               describe(a.chosen.run));
  });
}

}  // namespace stoker::cli
