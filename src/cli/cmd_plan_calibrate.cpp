// plan calibrate: this machine's efficiencies, measured, as catalog files that `plan` then reads.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "cli/command.h"
#include "cli/plan_options.h"
#include "io/atomic_write.h"
#include "io/file_system.h"
#include "plan/calibrate.h"
#include "plan/catalog.h"
#include "plan/catalog_files.h"
#include "spec/presets.h"
#include "train/bench_step.h"

namespace stoker::cli {
namespace {

using namespace stoker::plan;
using nlohmann::json;

constexpr std::string_view kName = "this-machine";
constexpr std::string_view kBandGroup = "other software on this-machine, dense";

struct CalibrateFlags {
  std::vector<std::string> files;
  std::string on = "cpu", out;
  int rounds = 3;
  bool json = false;
};

// The models by turns, the order turned round every time: a machine that slows down or speeds up meanwhile does so
// for all of them.
json measured_by_bench(int rounds) {
  train::StepBenchOptions o;
  o.length = 512, o.rows = 2;
  std::vector<std::string> models = std::exchange(o.presets, {});
  for (int round = 0; round < rounds; ++round) {
    o.presets.insert(o.presets.end(), models.begin(), models.end());
    std::reverse(models.begin(), models.end());
  }
  const train::StepBench b = train::bench_step(o);
  json steps = json::array();
  for (const auto& m : b.models) {
    json anatomy = json::object();
    for (const auto& part : m.anatomy) anatomy[part.what] = part.share;
    steps.push_back({{"name", m.name}, {"step_s", m.step_s}, {"anatomy", std::move(anatomy)}});
  }
  return {{"peak_gflops", b.peak_flops * 1e-9},
          {"rows", o.rows},
          {"length", o.length},
          {"precision", to_string(o.precision)},
          {"models", std::move(steps)}};
}

json read_bench(const std::string& path) {
  constexpr std::string_view kWanted = "what `stoker bench step --json` printed";
  json measured = json::parse(read_text(path, kWanted), nullptr, false);
  if (!measured.is_object()) fail(ErrorKind::kData, "{} is not a JSON object: give {}", path, kWanted);
  return measured;
}

HardwareSpec hardware_of(const std::string& on, Precision precision, double peak) {
  HardwareSpec h = parse_hardware(on);
  if (h.accelerators != 1)
    fail(ErrorKind::kUsage, "--on {}: expected one accelerator; the bench measures one worker", on);
  AcceleratorSpec& a = h.accelerator;
  a.name = a.family = kName;
  // Only the measured type is known; the other keeps the maker's proportion to it.
  const FlopsPerSecond measured(peak);
  const FlopsPerSecond maker = precision == Precision::kFp32 ? a.fp32 : std::max(a.bf16, a.fp16);
  if (!(maker > FlopsPerSecond(0)) || !(peak > 0))
    fail(ErrorKind::kUsage, "--on {}: no {} peak is known or measured", on, to_string(precision));
  const double scale = measured / maker;
  a.fp32 = a.fp32 * scale, a.fp16 = a.fp16 * scale, a.bf16 = a.bf16 * scale;
  return h;
}

Precision precision_of(const json& bench) {
  return bench.value("precision", "bf16") == "fp32" ? Precision::kFp32 : Precision::kBf16;
}

// The best of all: a busy moment must not lower the ceiling of one round.
double best_peak(const std::vector<json>& benches, Precision p) {
  double best = 0;
  for (const json& b : benches)
    if (precision_of(b) == p) best = std::max(best, b.at("peak_gflops").get<double>() * 1e9);
  return best;
}

void steps_of(const json& bench, const HardwareSpec& hardware, std::vector<MeasuredStep>& steps) {
  const Precision p = precision_of(bench);
  for (const json& m : bench.at("models")) {
    MeasuredStep s;
    s.model = m.at("name").get<std::string>();
    s.step_s = m.at("step_s").get<double>();
    for (const auto& [part, share] : m.at("anatomy").items())
      s.share[static_cast<size_t>(work_kind(part))] += share.get<double>();
    s.input.engine = "stoker";
    s.input.hardware = hardware;
    s.input.run.model = model_preset(s.model);
    s.input.run.precision = p;
    const int64_t rows = bench.value("rows", int64_t{4});
    s.input.run.batch = {rows, rows, bench.value("length", int64_t{1024})};
    steps.push_back(std::move(s));
  }
}

std::string accelerator_row(const HardwareSpec& h) {
  const AcceleratorSpec& a = h.accelerator;
  const auto tera = [](FlopsPerSecond f) { return f.value() / 1e12; };
  return fmt::format(
      "{},{},,{:.5g},{:.5g},{:.5g},,,{:.5g},{:.5g},{:.5g},1,2,1,1,measured by stoker plan calibrate\n",
      a.name, a.family, tera(a.fp32), tera(a.fp16), tera(a.bf16), in_gibibytes(a.memory),
      a.memory_bandwidth.value() / 1e12, a.power.value());
}

// A catalog file as it is now, without the rows that begin with `start`.
std::string catalog_without(std::string_view file, const std::string& start) {
  std::istringstream before(catalog_file(file));
  std::string kept, line;
  while (std::getline(before, line))
    if (!line.starts_with(start)) kept += line + "\n";
  return kept;
}

std::string band_row(const Calibration& c) {
  double errors = 0;
  size_t steps = 0;
  for (const CalibrationCheck& check : c.checks) errors += std::abs(check.error()), steps += check.steps;
  return fmt::format("\"{}\",{},{:.4f},{:.4f}\n", kBandGroup, steps,
                     errors / static_cast<double>(c.checks.size()), calibrated_band(c));
}

void write_catalog(const CalibrateFlags& f, const HardwareSpec& hardware, const Calibration& c) {
  io::FileSystem& fs = io::real_file_system();
  std::filesystem::create_directories(f.out);
  const std::pair<std::string_view, std::string> files[] = {
      {"accelerators.csv",
       catalog_without("accelerators.csv", fmt::format("{},", kName)) + accelerator_row(hardware)},
      {"efficiency.csv", c.table.to_csv()},
      {"error_bands.csv",
       catalog_without("error_bands.csv", fmt::format("\"{}\",", kBandGroup)) + band_row(c)}};
  for (const auto& [name, text] : files) io::write_file_atomic(fs, fmt::format("{}/{}", f.out, name), text);
}

void run(const CalibrateFlags& f) {
  std::vector<MeasuredStep> steps;
  try {
    std::vector<json> benches;
    for (const std::string& file : f.files) benches.push_back(read_bench(file));
    if (f.files.empty()) benches.push_back(measured_by_bench(f.rounds));
    for (const json& b : benches)
      steps_of(b, hardware_of(f.on, precision_of(b), best_peak(benches, precision_of(b))), steps);
  } catch (const json::exception& e) {
    fail(ErrorKind::kData, "not what `stoker bench step --json` prints: {}", e.what());
  }
  // The nearest catalog entry's own factors are where this machine's start.
  EfficiencyTable start = fitted_efficiency();
  const std::string family = parse_hardware(f.on).accelerator.family;
  for (int t = 0; t < kTerms; ++t)
    if (const double factor = start.get(static_cast<Term>(t), Scope::kFamily, family); factor != 0)
      start.set(static_cast<Term>(t), Scope::kFamily, kName, factor);
  const Calibration c = calibrate(start, steps);
  if (!f.out.empty()) write_catalog(f, steps.front().input.hardware, c);
  const AcceleratorSpec& a = steps.front().input.hardware.accelerator;
  const Efficiency e = c.table.resolve(a.family, "stoker", "");
  if (f.json) {
    json checks = json::array(), factors = json::object();
    for (const CalibrationCheck& check : c.checks)
      checks.push_back({{"model", check.model},
                        {"measured_s", check.measured_s},
                        {"predicted_s", check.predicted_s},
                        {"fastest_s", check.fastest_s},
                        {"slowest_s", check.slowest_s},
                        {"steps", check.steps},
                        {"error", std::abs(check.error())},
                        {"held_out", check.held_out}});
    for (size_t k = 0; k < kWorkKinds; ++k) factors[to_string(static_cast<WorkKind>(k))] = c.factor[k];
    fmt::print("{}\n", json{{"peak_gflops", std::max(a.bf16, a.fp32).value() * 1e-9},
                            {"matmul", e[Term::kMatmul16]},
                            {"attention", e[Term::kAttention]},
                            {"time_factors", std::move(factors)},
                            {"checks", std::move(checks)},
                            {"band", calibrated_band(c)},
                            {"out", f.out}}
                           .dump(2));
    return;
  }
  fmt::print("peak {:.0f} GFLOP/s, measured; of it products reach {:.0f} %, attention {:.0f} %\n\n",
             std::max(a.bf16, a.fp32).value() * 1e-9, 100 * e[Term::kMatmul16], 100 * e[Term::kAttention]);
  fmt::print("{:<16} {:>6} {:>12} {:>16} {:>13} {:>8}\n", "step of", "turns", "median, s", "from, to",
             "predicted, s", "error");
  for (const CalibrationCheck& check : c.checks)
    fmt::print("{:<16} {:>6} {:>12.4g} {:>16} {:>13.4g} {:>+7.1f}%  {}\n", check.model, check.steps,
               check.measured_s, fmt::format("{:.4g}, {:.4g}", check.fastest_s, check.slowest_s),
               check.predicted_s, 100 * check.error(),
               check.held_out ? "calibrated on the other models" : "in sample: one model only");
  fmt::print(
      "band of answers: {:.1f} % either way, the largest error and what turns of one model differ by\n",
      100 * calibrated_band(c));
  if (f.out.empty()) fmt::print("\nnothing written: --out DIR keeps it\n");
  else
    fmt::print(
        "\nwrote accelerators.csv, efficiency.csv and error_bands.csv to {0}; use them with\n  "
        "STOKER_CATALOG={0} stoker "
        "plan MODEL --on {1}:1 --set run.engine=stoker\n",
        f.out, kName);
}

}  // namespace

void add_plan_calibrate(Command& plan) {
  auto* cmd = plan.add_subcommand("calibrate",
                                  "Fit this machine's ceilings from measured steps of `stoker bench step`");
  auto flags = std::make_shared<CalibrateFlags>();
  cmd->add_option("bench", flags->files,
                  "What `stoker bench step --json` printed; absent: measured now (two minutes)")
      ->type_name("FILE");
  cmd->add_option("--rounds", flags->rounds, "Turns of each model, three steps each, that are measured now")
      ->capture_default_str()
      ->range(1, 1000);
  cmd->add_option("--on", flags->on, "The catalog's entry that is nearest to this machine")
      ->capture_default_str();
  cmd->add_option("--out", flags->out, "Write catalog files with `this-machine` into this directory")
      ->type_name("DIR");
  cmd->add_flag("--json", flags->json, "Print JSON (docs/json.md)");
  cmd->footer(
      "Example:\n  stoker bench step --json > bench.json\n  stoker plan calibrate bench.json --out "
      "my-catalog");
  cmd->callback([flags] { run(*flags); });
}

}  // namespace stoker::cli
