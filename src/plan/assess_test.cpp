#include "plan/assess.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "plan/assessment_json.h"
#include "plan/catalog.h"
#include "plan/levers.h"
#include "plan/plan_report.h"
#include "plan/published_energy.h"
#include "plan/sweep.h"
#include "spec/parameter_table.h"

namespace stoker::plan {
namespace {

AssessOptions quick() {
  AssessOptions options;
  options.trials = 50;
  return options;
}

PlanRequest request(const std::vector<std::string>& settings = {}) {
  return parse_plan(R"(
model = "llama3-8b"
tokens = 1e12
[hardware]
on = "h100:64"
[run]
sequence_length = 4096
global_batch = 512
)",
                    "test", settings);
}

std::string message_of(const std::vector<std::string>& settings) {
  try {
    assess(request(settings), quick());
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage) << e.what();
    return e.what();
  }
  return "no error";
}

TEST(PlanFile, EveryRecipeIsReadAndPlanned) {
  size_t seen = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(STOKER_SOURCE_DIR) / "recipes/plan")) {
    const Assessment a = assess(read_plan_file(entry.path().string()), quick());
    EXPECT_TRUE(a.fits) << entry.path();
    EXPECT_TRUE(a.cost().possible) << entry.path() << ": " << a.cost().reason;
    EXPECT_GT(a.chosen.prediction.mfu, 0.02) << entry.path();
    EXPECT_LT(a.chosen.prediction.mfu, 1) << entry.path();
    ++seen;
  }
  EXPECT_GE(seen, 7u);
}

TEST(PlanFile, MistakesAreNamed) {
  EXPECT_NE(message_of({"run.precison=fp8"}).find("nearest: precision"), std::string::npos) << "nearest key";
  EXPECT_NE(message_of({"hardware.on=h1000:8"}).find("H100"), std::string::npos);
  EXPECT_NE(message_of({"model=lama3-8b"}).find("llama3-8b"), std::string::npos);
  EXPECT_NE(message_of({"site.region=franc"}).find("fr"), std::string::npos);
  EXPECT_NE(message_of({"money.price_per_hour=-2"}).find("price_per_hour"), std::string::npos);
  EXPECT_NE(message_of({"figures.rent.egress_per_gb=-1"}).find("negative"), std::string::npos);
  EXPECT_NE(message_of({"tokens=-5"}).find("tokens"), std::string::npos);
  EXPECT_NE(message_of({"tokens=many"}).find("tokens"), std::string::npos);
  EXPECT_NE(message_of({"hardware.on=h100:0"}), "no error");
  EXPECT_NE(message_of({"hardware.power_cap_w=20"}).find("power cap"), std::string::npos);
  EXPECT_THROW(parse_plan("model = ", "x"), Error);
  EXPECT_THROW(parse_plan("tokens = 1\n[hardware]\non = \"h100:8\"", "x"), Error);
  EXPECT_THROW(request({"no-equals"}), Error);
}

TEST(PlanFile, ContradictionsNameBothSides) {
  const std::string batch = message_of({"run.global_batch_tokens=1e6"});
  EXPECT_NE(batch.find("global_batch = 512"), std::string::npos) << batch;
  EXPECT_NE(batch.find("global_batch_tokens"), std::string::npos) << batch;
  const std::string layout = message_of({"layout.tensor=8", "layout.data=4"});
  EXPECT_NE(layout.find("32 workers"), std::string::npos) << layout;
  EXPECT_NE(layout.find("h100:64"), std::string::npos) << layout;
  EXPECT_NE(message_of({"run.lora_rank=8"}).find("run.training"), std::string::npos);
  const std::string micro = message_of({"run.micro_batch=1000"});
  EXPECT_NE(micro.find("run.micro_batch = 1000 contradicts run.global_batch = 512"), std::string::npos)
      << micro;
  const std::string cap = message_of({"hardware.power_cap_w=5000"});
  EXPECT_NE(cap.find("5000 W contradicts accelerator power 700 W"), std::string::npos) << cap;
  const Assessment a = assess(request({"constraints.deadline_days=1", "constraints.power_mw=0.01"}), quick());
  bool named = false;
  for (const std::string& w : a.warnings)
    named |= w.find("deadline_days") != std::string::npos && w.find("power_mw") != std::string::npos;
  EXPECT_TRUE(named);
  ASSERT_EQ(a.limits.size(), 2u);
  EXPECT_FALSE(a.limits[0].met);
}

TEST(PlanFile, SizesAreWhatWasAskedFor) {
  for (const double n : {1e8, 1e9, 7e9, 7e10, 5e11})
    EXPECT_NEAR(static_cast<double>(parameter_count(shape_for_parameters(n))) / n, 1, 0.05) << n;
  EXPECT_THROW(shape_for_parameters(5), Error);
}

TEST(Assess, TwiceTheTokensTwiceTheTimeEnergyAndMoney) {
  const Assessment once = assess(request({"money.path=on-premises"}), quick()),
                   twice = assess(request({"money.path=on-premises", "tokens=2e12"}), quick());
  EXPECT_NEAR(twice.work.mid / once.work.mid, 2, 1e-4);  // steps are whole
  // The simulated stretch differs by its sampling error: sums of about a hundred failures over 50 runs.
  EXPECT_NEAR(twice.wall.mid / once.wall.mid, 2, 0.04);
  EXPECT_NEAR(twice.energy.site.mid / once.energy.site.mid, 2, 0.04);
  double machines[2] = {};
  for (const CostLine& line : once.cost().lines)
    if (line.name == "accelerators and servers") machines[0] = line.cost.mid.value();
  for (const CostLine& line : twice.cost().lines)
    if (line.name == "accelerators and servers") machines[1] = line.cost.mid.value();
  EXPECT_NEAR(machines[1] / machines[0], 2, 0.04);
}

TEST(Assess, WhatDoesNotFitSaysSo) {
  const Assessment a = assess(request({"model=llama3-405b", "hardware.on=h100:8"}), quick());
  EXPECT_FALSE(a.fits);
  ASSERT_FALSE(a.limits.empty());
  EXPECT_EQ(a.limits[0].what, "memory");
}

TEST(Assess, MoreMemoryNeverTurnsFitIntoOutOfMemory) {
  bool fitted = false;
  for (const char* gb : {"24", "40", "80", "160"}) {
    const Assessment a =
        assess(request({"hardware.on=h100:8", fmt::format("hardware.memory_GB={}", gb)}), quick());
    EXPECT_TRUE(a.fits || !fitted) << gb;
    fitted |= a.fits;
  }
  EXPECT_TRUE(fitted);
}

TEST(Assess, TheChosenLayoutIsTheFastestOfAll) {
  const LayoutChoice all = choose_layouts(request({"hardware.on=h100:16"}), 100000);
  ASSERT_EQ(all.best.size(), all.considered - all.did_not_fit);
  const LayoutChoice best = choose_layouts(request({"hardware.on=h100:16"}), 1);
  for (const LayoutCandidate& c : all.best)
    EXPECT_GE(c.prediction.step.total.value(), best.best[0].prediction.step.total.value());
  EXPECT_GT(all.did_not_fit, 0u);
}

TEST(Assess, JsonAndPageHoldThePlan) {
  const Assessment a = assess(request(), quick());
  const nlohmann::json j = to_json(a);
  EXPECT_EQ(j["accelerators"], 64);
  EXPECT_LE(j["wall_days"]["low"].get<double>(), j["wall_days"]["mid"].get<double>());
  EXPECT_LE(j["wall_days"]["mid"].get<double>(), j["wall_days"]["high"].get<double>());
  EXPECT_EQ(j["paths"].size(), 8u);
  const std::string page = plan_report_html(assess(request({"name=</script><b>"}), quick()), levers(a));
  EXPECT_NE(page.find("Chart.js v"), std::string::npos);
  EXPECT_NE(page.find("MIT License"), std::string::npos);
  EXPECT_EQ(page.find("</script><b>"), std::string::npos);  // a name cannot close the script
  EXPECT_EQ(page.find("https://cdn"), std::string::npos);
  EXPECT_EQ(page.find("src="), std::string::npos);  // nothing is fetched
}

// What the page's charts and tables are drawn from is in it, complete and in order.
TEST(Report, ChartsHaveDataAndAnswersHaveRanges) {
  const Assessment a = assess(request(), quick());
  const std::string page = plan_report_html(a, levers(a));
  for (const char* chart : {"step", "money", "lost", "memory"}) {
    EXPECT_NE(page.find(fmt::format("<canvas id=\"{}\">", chart)), std::string::npos) << chart;
    EXPECT_NE(page.find(fmt::format("new Chart(document.getElementById(\"{}\")", chart)), std::string::npos);
  }
  const std::string open = "<script id=\"data\" type=\"application/json\">";
  const size_t begin = page.find(open) + open.size();
  const nlohmann::json data =
      nlohmann::json::parse(page.substr(begin, page.find("</script>", begin) - begin));
  const nlohmann::json& plan = data["plan"];
  double terms = 0;
  for (const auto& [name, seconds] : plan["chosen"]["step_terms_seconds"].items()) {
    EXPECT_GE(seconds.get<double>(), 0) << name;
    terms += seconds.get<double>();
  }
  EXPECT_NEAR(terms, plan["step_seconds"]["mid"].get<double>(), 1e-6 * terms);
  double bytes = 0;
  for (const nlohmann::json& row : plan["chosen"]["memory_rows"]) bytes += row["bytes"].get<double>();
  EXPECT_GE(bytes, plan["chosen"]["memory_peak_bytes"].get<double>());
  size_t possible = 0;
  for (const nlohmann::json& path : plan["paths"]) {
    if (!path["possible"].get<bool>()) continue;
    ++possible;
    EXPECT_LT(path["usd"]["low"].get<double>(), path["usd"]["mid"].get<double>());
    EXPECT_LT(path["usd"]["mid"].get<double>(), path["usd"]["high"].get<double>());
    EXPECT_FALSE(path["lines"].empty());
  }
  EXPECT_GT(possible, 2u);
  EXPECT_GT(data["levers"].size(), 5u);
  for (const nlohmann::json& layout : plan["layouts"])
    EXPECT_GE(layout["step_seconds"].get<double>(), plan["layouts"][0]["step_seconds"].get<double>());
  for (const char* answer : {"step_seconds", "wall_days"}) {
    EXPECT_LT(plan[answer]["low"].get<double>(), plan[answer]["mid"].get<double>()) << answer;
    EXPECT_LT(plan[answer]["mid"].get<double>(), plan[answer]["high"].get<double>()) << answer;
    // and the page prints low and high beside it
  }
  EXPECT_NE(page.find("card(\"Step\", band(plan.step_seconds, \" s\"), range(plan.step_seconds, \" s\"))"),
            std::string::npos);
  EXPECT_NE(page.find("range(plan.cost.usd)"), std::string::npos);
}

TEST(Levers, EachChangesWhatItShould) {
  const Assessment a = assess(request({"run.recompute=full"}), quick());
  bool seen_fp8 = false, seen_cap = false;
  for (const Lever& l : levers(a)) {
    if (!l.applies) {
      EXPECT_FALSE(l.reason.empty()) << l.name;
      continue;
    }
    EXPECT_LE(l.time.low, l.time.mid) << l.name;
    EXPECT_LE(l.time.mid, l.time.high) << l.name;
    if (l.name == "fp8") {
      EXPECT_LT(l.time.mid, 1);
      seen_fp8 = true;
    }
    if (l.name == "power cap 70 %") {
      EXPECT_GT(l.time.mid, 1);
      EXPECT_LT(l.energy.mid, 1);
      seen_cap = true;
    }
    if (l.name == "recompute none") {
      EXPECT_GT(l.memory_gib, 0);
    }
  }
  EXPECT_TRUE(seen_fp8);
  EXPECT_TRUE(seen_cap);
  // Not all accelerators have 8-bit arithmetic.
  for (const Lever& l : levers(assess(request({"hardware.on=a100-80gb:64"}), quick())))
    if (l.name == "fp8") {
      EXPECT_FALSE(l.applies);
    }
}

// INTELLECT-1 (arXiv 2412.01152): 10 B parameters on 112 H100, parameters exchanged every 100 steps of 23 s each;
// machines worked 96 % of the time within one country and 83 % over three continents.
TEST(Levers, RareExchangeCostsWhatWasPublished) {
  const Assessment a = assess(request({"model=\"size:1e10\"", "hardware.on=h100:112",
                                       "run.sequence_length=8192", "run.global_batch=2016"}),
                              quick());
  ASSERT_TRUE(a.fits);
  EXPECT_NEAR(a.step.mid.value(), 23, 7);
  for (const Lever& l : levers(a))
    if (l.name.starts_with("DiLoCo")) {
      ASSERT_TRUE(l.applies) << l.reason;
      EXPECT_LT(l.time.low, 1 / 0.96);
      EXPECT_GT(l.time.high, 1 / 0.83);
      EXPECT_GT(l.time.mid, 1 / 0.96);
      EXPECT_LT(l.time.mid, 1 / 0.83);
      return;
    }
  FAIL() << "no such lever";
}

// Each path has its own interruptions and its own site: time and energy are the path's, not the plan's.
TEST(Assess, PathsDifferInTimeAndEnergy) {
  const Assessment a = assess(request({"hardware.on=h100:1024"}), quick());
  const auto path = [](const Assessment& of, PathKind kind) -> const PathCost& {
    return of.paths[static_cast<size_t>(kind)];
  };
  const PathCost &on_demand = path(a, PathKind::kOnDemand), &spot = path(a, PathKind::kSpot);
  EXPECT_GT(spot.wall.mid, on_demand.wall.mid);
  EXPECT_NEAR(spot.energy.site.mid / on_demand.energy.site.mid, spot.wall.mid / on_demand.wall.mid, 1e-9);
  EXPECT_GT(path(a, PathKind::kOnPremises).energy.site.mid, on_demand.energy.site.mid);  // its cooling
  // A given PUE holds for all of them, in energy and in money.
  const Assessment lean = assess(request({"hardware.on=h100:1024", "site.pue=1.05"}), quick());
  for (const PathCost& c : lean.paths)
    if (c.possible) {
      EXPECT_NEAR(c.energy.site.mid / c.energy.it.mid, 1.05, 1e-9) << to_string(c.path);
    }
  EXPECT_LT(path(lean, PathKind::kOnPremises).total.mid, path(a, PathKind::kOnPremises).total.mid);
}

TEST(Sweep, ParetoKeepsOnlyWhatNothingBeats) {
  const auto points = sweep(request(), {"h100", "a100-80gb"}, 16, 64, quick());
  ASSERT_EQ(points.size(), 6u);
  const auto front = pareto(points);
  ASSERT_FALSE(front.empty());
  for (const ParetoPoint& p : front)
    for (const SweepPoint& q : points) {
      if (!q.assessment) continue;
      for (const PathCost& c : q.assessment->paths) {
        const double days = c.wall.mid.value() / 86400, mwh = c.energy.site.mid.value() / 3.6e9;
        EXPECT_FALSE(c.possible && days < p.days && c.total.mid.value() < p.dollars && mwh < p.mwh);
      }
    }
  EXPECT_THROW(sweep(request(), {"h100"}, 64, 16, quick()), Error);
}

TEST(PublishedEnergy, WorksOutAndSaysWhyNot) {
  const CsvTable table("e.csv",
                       "run,params_B,tokens_B,accelerator,n_accelerators,accelerator_hours,W_per_accelerator_"
                       "used,energy_method,"
                       "energy_MWh,pue,carbon_intensity_g_per_kWh,tCO2e,cost_usd,wall_days,notes\n"
                       "BLOOM,176,,A100-80GB,384,1082990,400,hours*TDP,433.196,1.2,57,24.69,,118.24,\n"
                       "GPT-3,175,,V100,10000,,330,assumed n GPUs*average W*time*PUE,1287,1.1,,,,14.8,\n"
                       "MPT,7,,A100-40GB,440,100320,,,,,,,200000,9.5,~$200k at $2/h\n"
                       "OLMo,7,,A100-40GB,216,,,MEASURED GPU power,104,1.1,,,,,\n"
                       "nothing,7,,X,,,,,,,,,,,\n");
  const auto no_plan = [](std::string_view, double, double, std::string_view, std::optional<double>) {
    return HoursEstimate{std::nullopt, "not asked"};
  };
  const EnergyValidation v = summarise(check_energy(
      table, FigureBook::built_in(), [](std::string_view) { return std::optional<double>(); }, no_plan));
  EXPECT_EQ(v.printed_within_10_percent, v.printed);
  EXPECT_EQ(v.printed, 6u);  // BLOOM hours, energy, carbon; GPT-3 energy; MPT hours, cost
  EXPECT_LT(v.printed_max_abs_error, 0.01);
  size_t unexplained = 0;
  for (const EnergyCheck& c : v.checks) unexplained += c.how.empty();
  EXPECT_EQ(unexplained, 0u);
  EXPECT_EQ(v.checks.back().run, "nothing");
  EXPECT_THROW(check_energy(CsvTable("x", "a,b\n1,2\n"), FigureBook::built_in(), {}, no_plan), Error);
}

}  // namespace
}  // namespace stoker::plan
