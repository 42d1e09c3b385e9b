// plan check: the plan against a run, error by term.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command.h"
#include "cli/plan_options.h"
#include "cli/plan_screen.h"
#include "dash/run_log.h"
#include "dash/run_report.h"
#include "io/file_system.h"
#include "plan/assessment_json.h"

namespace stoker::cli {
namespace {

using namespace stoker::plan;
using nlohmann::json;

double median(std::vector<double> values) {
  std::erase_if(values, [](double v) { return !std::isfinite(v); });
  if (values.empty()) return std::nan("");
  const size_t half = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(half), values.end());
  return values[half];
}

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

}  // namespace

void add_plan_check(CLI::App& plan) {
  auto* cmd = plan.add_subcommand("check", "A plan against a finished or running Stoker run, error by term");
  auto run = std::make_shared<std::string>();
  cmd->add_option("run", *run, "Run directory (holds log.jsonl)")->required()->type_name("RUN");
  auto o = add_plan_options(*cmd, false);
  cmd->footer("Example: stoker plan check runs/demo plan.toml");
  cmd->callback([run, o] {
    io::FileSystem& fs = io::real_file_system();
    const dash::RunLog log = dash::read_run_log(fs, *run);
    const std::string beside = *run + "/plan.toml";
    if (o->file.empty() && std::filesystem::exists(beside)) o->file = beside;
    if (o->file.empty())
      fail(ErrorKind::kUsage, "no plan to check: give one after the run, or put plan.toml into {}", *run);
    const Assessment a = assess(plan_request(*o));
    // The first steps warm caches up.
    const size_t skip = log.steps.size() > 10 ? std::max<size_t>(2, log.steps.size() / 20) : 0;
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
      json rows = json::array();
      const auto or_null = [](double v) { return std::isfinite(v) ? json(v) : json(nullptr); };
      for (const Term& t : terms)
        rows.push_back({{"name", t.name},
                        {"planned", or_null(t.planned)},
                        {"measured", or_null(t.measured)},
                        {"error", t.measured > 0 ? or_null(t.planned / t.measured - 1) : json(nullptr)}});
      fmt::print("{}\n",
                 json{{"plan", to_json(a)}, {"terms", std::move(rows)}, {"steps", log.steps.size()}}.dump(2));
      return;
    }
    fmt::print("{:<30} {:>12} {:>12} {:>9}\n", "", "planned", "measured", "error");
    for (const Term& t : terms)
      if (std::isfinite(t.measured))
        fmt::print("{:<30} {:>12.4g} {:>12.4g} {:>9}\n", t.name, t.planned, t.measured,
                   t.measured > 0 ? fmt::format("{:+.1f} %", (t.planned / t.measured - 1) * 100) : "");
    fmt::print("{} steps, the first {} left out; layout planned: {}\n", log.steps.size(), skip,
               describe(a.chosen.run));
  });
}

}  // namespace stoker::cli
