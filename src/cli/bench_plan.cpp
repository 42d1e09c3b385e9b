#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "plan/catalog.h"
#include "plan/search.h"

namespace stoker::cli {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

void add_bench_plan(Command& bench) {
  auto* cmd = bench.add_subcommand("plan", "Predictions per second, and a full layout search, on one core");
  auto json = std::make_shared<bool>(false);
  cmd->add_flag("--json", *json, "Print JSON (docs/json.md)");
  cmd->footer("Example:\n  stoker bench plan --json");
  cmd->callback([json] {
    using namespace stoker::plan;
    PlanInput in;
    const CatalogModel& model = find_model("llama3-405b");
    in.run.model = model.spec;
    in.run.batch = {2048, 1, 8192};
    in.hardware = parse_hardware("h100:16384");
    predict_memory(in, fitted_efficiency().resolve("H100", "", ""));  // catalog read before the clock starts

    const auto search_start = std::chrono::steady_clock::now();
    const SearchResult found = search(in, {}, 3);
    const double search_s = seconds_since(search_start);

    in.run = found.best.front().run;
    constexpr int kPredictions = 20000;
    double sum = 0;
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kPredictions; ++i) {
      in.run.batch.global_batch = 2048 * (1 + i % 4);
      sum += predict(in).step.total.value();
    }
    const double each_s = seconds_since(start) / kPredictions;
    const RankedLayout& best = found.best.front();
    if (*json) {
      fmt::print("{}\n", nlohmann::json{{"predictions_per_s", 1 / each_s},
                                        {"search_s", search_s},
                                        {"layouts_considered", found.considered},
                                        {"layouts_did_not_fit", found.did_not_fit},
                                        {"best_layout", to_string(best.run.layout)},
                                        {"best_step_s", best.prediction.step.total.value()},
                                        {"mean_step_s", sum / kPredictions}}
                             .dump(2));
      return;
    }
    fmt::print(
        "single predictions      {:.0f} per second (validated, looked up by name)\n"
        "layout search           Llama-3 405B on 16,384 H100: {} layouts considered in {:.3f} s, {} slower "
        "than the best "
        "three, {} of the rest did not fit\n"
        "best                    {}, micro-batch {}, recompute {}: {:.2f} s a step, MFU {:.1f} %\n",
        1 / each_s, found.considered, search_s, found.slower_by_bound, found.did_not_fit,
        to_string(best.run.layout), best.run.batch.micro_batch, to_string(best.run.recompute),
        best.prediction.step.total.value(), 100 * best.prediction.mfu);
  });
}

}  // namespace stoker::cli
