// plan/plan_file.h
// What a user asks the planner: one TOML file (docs/planner.md lists every key), with settings
// changed from the command line by dotted name before it is read.
// Model    a name of the catalog or a preset, a config.json, a [model] table, or "size:7e9": a
//          llama-shaped model of about that many parameters
// Errors   Usage: unknown keys (nearest offered), values of the wrong type or sign, two
//          constraints or settings that cannot both hold (both named). TOML mistakes with line and
//          column.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/failures.h"
#include "plan/figures.h"
#include "plan/money.h"
#include "spec/hardware_spec.h"
#include "spec/run_spec.h"

namespace stoker::plan {

struct Constraints {
  std::optional<double> deadline_days, budget_usd, power_mw;
};

struct PlanRequest {
  std::string name;  // of the plan: its file or model
  std::string model_name;
  double score_scale = 1;    // attention arithmetic over heads x head_dim (catalog models)
  double scan_elements = 0;  // state-space layers (catalog models)
  RunSpec run;  // run.layout only meaningful with fixed_layout; run.recompute with fixed_recompute
  bool fixed_layout = false, fixed_recompute = false, fixed_micro_batch = false, fixed_zero = false;
  double tokens = 0;         // to train on; 0: for LoRA and the like one must be given, else 20 per parameter
  double unique_tokens = 0;  // data at hand; 0: as many as tokens
  std::string on;            // "h100:1024"
  HardwareSpec hardware;
  double power_cap_w = 0;
  bool workstation = false;
  std::string engine, release;
  std::string region = "us";
  std::optional<double> pue;
  double rack_units = 8;
  PathKind path = PathKind::kOnDemand;
  double utilisation = 0.7;     // of owned machines
  std::optional<double> price;  // USD per accelerator-hour
  std::string cloud;
  std::vector<std::string> price_files;
  std::optional<double> data_in_gb, data_out_gb, storage_tb;
  Recovery recovery;
  bool recovery_given = false;
  std::optional<double> checkpoint_s, checkpoint_interval_s;
  Constraints constraints;
  FigureBook figures;
  std::vector<std::string> notes;  // what was assumed for want of a setting
};

// `settings`: "hardware.on=h100:512", "run.precision=fp8", "figures.rent.egress_per_gb=0": value as in TOML,
// bare words taken as text.
PlanRequest read_plan_file(const std::string& path, const std::vector<std::string>& settings = {});
PlanRequest parse_plan(std::string_view text, const std::string& where,
                       const std::vector<std::string>& settings = {});

// A llama-shaped model of about `parameters`: 128-wide heads, 8 of them for keys from 6 B up, layers so that
// hidden / layers is near 128, vocabulary 128,256 (32,000 below 1 B).
ModelSpec shape_for_parameters(double parameters);

}  // namespace stoker::plan
