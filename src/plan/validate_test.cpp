#include "plan/validate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "plan/fit.h"

namespace stoker::plan {
namespace {

constexpr const char* kHeader =
    "id,source,model_name,params_B,layers,hidden,heads,kv_heads,ffn_hidden,vocab,seq_len,gpu,n_gpus,gpus_per_"
    "node,intra_bw,"
    "inter_bw,tp,pp,dp,cp,ep,zero_stage_fsdp,vpp,micro_batch,global_batch,precision,activation_recompute,"
    "flash_attention,"
    "sequence_parallel,tokens_per_s_per_gpu,tflops_per_gpu,mfu_pct,iteration_time_s,peak_mem_GB,derived_"
    "fields,notes,"
    "row_kind,flops_convention,gpu_family,precision_class\n";

std::vector<PublishedRun> read(const std::string& rows) {
  return read_published_runs(CsvTable("test.csv", kHeader + rows), "test.csv");
}

TEST(PublishedRuns, ReadsARowAndSaysWhatItAssumed) {
  const auto runs = read(
      "x-1,vendor table,Llama 3.1 8B,,,,,,,,8192,H100-80GB,16,8,,\"400Gb/s per GPU "
      "RDMA\",2,1,8,,,fsdp2,,1,32,bf16,,yes,,"
      "9000,,,,61.5,,,dense,,H100,bf16\n");
  ASSERT_EQ(runs.size(), 1u);
  const PublishedRun& r = runs[0];
  ASSERT_EQ(r.reason, "");
  EXPECT_EQ(r.source_group, "x");
  EXPECT_EQ(r.input.run.model.layers, 32);
  EXPECT_EQ(r.input.run.layout.tensor, 2);
  EXPECT_EQ(r.input.run.layout.data, 8);
  EXPECT_EQ(r.input.run.layout.zero_stage, 3);
  EXPECT_EQ(r.metric, Metric::kTokensPerSecondPerAccelerator);
  EXPECT_EQ(*r.peak_memory_gb, 61.5);
  EXPECT_DOUBLE_EQ(r.input.hardware.levels.back().bandwidth.value(), 50e9);
  EXPECT_FALSE(r.assumed.empty());
  EXPECT_DOUBLE_EQ(predicted_in_metric(r, Seconds(2)), 32 * 8192 / 2.0 / 16);
}

TEST(PublishedRuns, WhatIsNotStatedIsChosenAsACarefulUserWould) {
  const auto runs = read(
      // neither layout nor batch, of software that nothing is known of
      "p-1,some paper,Llama "
      "65B,65.2,80,8192,64,,,,2048,A100-80GB,2048,8,,,,,,,,,,,,,,,,380,,,,,,,dense,,A100,\n"
      // a name inside another model's: its parameters tell them apart
      "p-2,docs of levanter,GPT-2 6.7B,6.7,,,,,,,,TPU v3,,,,,,,,,,,,,,,,,,,,47.3,,,,TPU v3-256; HFU "
      "71.5%,dense,model,TPU v3,\n"
      "p-3,torchtune,Llama 3.1 70B full,70.6,,,,,,,,MI300X,8,8,,,,,,,,,,64,,,full,,,143,,,,,,\"unpacked, "
      "variable "
      "length\",sft,,MI300X,\n");
  ASSERT_EQ(runs.size(), 3u);
  ASSERT_EQ(runs[0].reason, "");
  const RunSpec& llama = runs[0].input.run;
  EXPECT_EQ(llama.layout.world_size(), 2048);
  EXPECT_GE(llama.batch.tokens(), 4'000'000);
  EXPECT_EQ(runs[0].input.engine, "other megatron");
  EXPECT_NE(predict_memory(runs[0].input, EfficiencyTable().resolve("A100", "", "")).verdict,
            Verdict::kOutOfMemory);
  EXPECT_GE(runs[0].assumed.size(), 3u);
  ASSERT_EQ(runs[1].reason, "");
  EXPECT_GT(runs[1].input.run.model.hidden, 3000);
  EXPECT_EQ(runs[1].input.hardware.accelerators, 128);  // 256 cores, two to a chip
  EXPECT_NE(runs[2].reason.find("length"), std::string::npos);
}

TEST(PublishedRuns, NothingIsDropped) {
  const auto runs = read(
      "a-1,s,Unheard Of,,,,,,,,2048,H100,8,,,,,,,,,,,,,,,,,100,,,,,,,dense,,H100,\n"
      "a-2,s,Llama 2 7B,,,,,,,,2048,Abacus,8,,,,,,,,,,,,,,,,,100,,,,,,,dense,,,\n"
      "a-3,s,Llama 2 7B,,,,,,,,2048,H100,8,,,,,,,,,,,,,,,,,,,,,,,,dense,,H100,\n"
      "a-4,s,Llama 2 7B,,,,,,,,2048,A100-40GB,1,,,,,,,,,,,64,64,,none,no,,,,,,,,outcome=OOM,dense,,A100,\n"
      "a-5,s,Llama 2 7B,,,,,,,,2048,A100-80GB,8,,,,1,1,,,,,,1,8,,full,yes,,3000,,,,,,,dense,,A100,\n");
  const Validation v = validate_runs(runs, fitted_efficiency());
  ASSERT_EQ(v.rows.size(), 5u);
  EXPECT_NE(v.rows[0].reason.find("shape neither stated nor in the catalog"), std::string::npos);
  EXPECT_NE(v.rows[1].reason.find("abacus"), std::string::npos);
  EXPECT_NE(v.rows[2].reason.find("measured"), std::string::npos);
  EXPECT_TRUE(v.rows[3].predicted_oom);  // 64 unfused sequences of a 7B on 40 GB
  EXPECT_TRUE(v.rows[4].compared);
  EXPECT_EQ(v.all.compared, 1u);
  EXPECT_EQ(v.failed, 1u);
  EXPECT_EQ(v.failed_called_oom, 1u);
  for (const RowResult& r : v.rows) EXPECT_TRUE(r.compared || r.fit_judged || !r.reason.empty()) << r.run->id;
}

TEST(PublishedRuns, ATableWithoutItsColumnsIsRefused) {
  EXPECT_THROW(read_published_runs(CsvTable("t.csv", "id,source\n1,2\n"), "t.csv"), Error);
}

TEST(Quantiles, AreWeighted) {
  EXPECT_EQ(weighted_quantile({{1, 1}, {2, 1}, {3, 1}}, 0.5), 2);
  EXPECT_EQ(weighted_quantile({{1, 8}, {2, 1}, {3, 1}}, 0.5), 1);
  EXPECT_EQ(weighted_quantile({{3, 1}, {1, 1}}, 0.9), 3);
  EXPECT_TRUE(std::isnan(weighted_quantile({}, 0.5)));
}

// Rows made by the model with known efficiencies: the fit, which starts at the priors, must explain them.
TEST(Fit, ExplainsRowsMadeWithOtherEfficiencies) {
  std::string rows;
  int id = 0;
  for (const char* model : {"Llama 2 7B", "Llama 2 13B", "Llama 3.1 70B", "GPT-3 175B"})
    for (int tp : {1, 2, 4, 8})
      for (int pp : {1, 2, 4})
        rows += fmt::format(
            "m-{},nemo "
            "table,{},,,,,,,,4096,H100,64,8,,,{},{},{},,,zero1,,1,{},bf16,{},yes,,1000,,,,,,,dense,,H100,"
            "bf16\n",
            id, model, tp, pp, 64 / tp / pp, 64 / tp / pp * 16, id % 2 ? "full" : "none"),
            ++id;
  std::vector<PublishedRun> runs = read(rows);
  EfficiencyTable truth;
  // Products are held near what they reach alone; a chip whose clocks fall under load does all its work slower.
  truth.set(Term::kCompute, Scope::kFamily, "H100", std::log(0.75 / 0.6));
  truth.set(Term::kTensorExposed, Scope::kGlobal, "", std::log(0.5));
  truth.set(Term::kAttention, Scope::kGlobal, "", std::log(0.6));
  for (PublishedRun& run : runs) {
    ASSERT_EQ(run.reason, "");
    const Efficiency e =
        truth.resolve(run.input.hardware.accelerator.family, run.input.engine, run.input.release);
    run.measured = predicted_in_metric(run, predict_step_time(run.input, e).total);
  }
  const Validation before = validate_runs(runs, EfficiencyTable());
  const Validation after = validate_runs(runs, fit_step_time(runs, EfficiencyTable(), {}));
  EXPECT_GT(before.all.median, 0.05);
  EXPECT_LT(after.all.median, 0.02);
  EXPECT_LT(after.all.p90, 0.05);
}

TEST(Fit, FoldsCoverEveryRowOnceAndSplitNoConfiguration) {
  const auto runs = read(
      "a-1,s,Llama 2 7B,,,,,,,,2048,H100,8,,,,1,1,,,,,,1,8,bf16,,,,100,,,,,,,dense,,H100,\n"
      "a-2,s,Llama 2 7B,,,,,,,,2048,H100,8,,,,1,1,,,,,,2,16,bf16,,,,100,,,,,,,dense,,H100,\n"
      "b-3,s,Llama 2 70B,,,,,,,,2048,H100,64,,,,8,1,,,,,,1,64,bf16,,,,100,,,,,,,dense,,H100,\n");
  for (bool whole : {false, true}) {
    std::vector<int> seen(3), fold_of(3);
    int number = 0;
    for (const HeldOutFold& f : group_folds(runs, 4, whole)) {
      for (size_t i : f.held_out) ++seen[i], fold_of[i] = number;
      ++number;
    }
    EXPECT_EQ(seen, (std::vector<int>{1, 1, 1}));
    EXPECT_EQ(fold_of[0], fold_of[1]);
  }
  EXPECT_EQ(source_folds(runs).size(), 2u);
}

TEST(Efficiencies, SoftwareThatIsNotKnownTakesItsLineagesHabits) {
  EfficiencyTable t;
  t.set(Term::kBubble, Scope::kLineage, "megatron", 0.5);
  t.set(Term::kBubble, Scope::kEngine, "nemo", 0.25);
  const double none = t.resolve("H100", "", "")[Term::kBubble];
  EXPECT_NEAR(t.resolve("H100", "other megatron", "")[Term::kBubble] / none, std::exp(0.5), 1e-9);
  EXPECT_NEAR(t.resolve("H100", "nemo", "")[Term::kBubble] / none, std::exp(0.75), 1e-9);
  EXPECT_NEAR(t.resolve("H100", "torchtitan", "")[Term::kBubble] / none, 1, 1e-9);
  EXPECT_FALSE(fitted_efficiency().knows_engine("other megatron"));
}

TEST(Efficiencies, AFamilyStartsFromWhatItReachesAlone) {
  const EfficiencyTable priors;
  for (const MeasuredCeiling& c : measured_ceilings()) {
    const double h100 = priors.resolve("H100", "", "")[c.term];
    EXPECT_NEAR(priors.resolve(c.family, "", "")[c.term], std::min(1.0, h100 * c.over_reference), 1e-9)
        << c.family;
  }
  EXPECT_GT(measured_ceilings().size(), 20u);
}

TEST(Efficiencies, SurviveWritingAndReading) {
  EfficiencyTable t;
  t.set(Term::kAttention, Scope::kFamily, "H100", 0.25);
  t.set(Term::kFixed, Scope::kEngineOnFamily, "mlperf|H100", -0.5);
  const EfficiencyTable back = EfficiencyTable::parse(t.to_csv(), "again");
  for (int i = 0; i < kTerms; ++i) {
    const Efficiency a = t.resolve("H100", "mlperf", ""), b = back.resolve("H100", "mlperf", "");
    EXPECT_NEAR(b.value[static_cast<size_t>(i)] / a.value[static_cast<size_t>(i)], 1, 1e-3);
  }
  EXPECT_THROW(EfficiencyTable::parse("term,scope,key,value\nno_such,global,,1\n", "t"), Error);
  EXPECT_THROW(EfficiencyTable::parse("term,scope,key,value\nfixed,global,,-1\n", "t"), Error);
}

}  // namespace
}  // namespace stoker::plan
