// plan calibrate: this machine's efficiencies, measured, as catalog files that `plan` then reads.
#include <fmt/core.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

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

struct CalibrateFlags {
  std::vector<std::string> files;
  std::string on = "cpu", out;
  bool json = false;
};

json measured_by_bench() {
  train::StepBenchOptions o;
  o.length = 512;
  const train::StepBench b = train::bench_step(o);
  json models = json::array();
  for (const auto& m : b.models) {
    json anatomy = json::object();
    for (const auto& part : m.anatomy) anatomy[part.what] = part.share;
    models.push_back({{"name", m.name}, {"step_s", m.step_s}, {"anatomy", std::move(anatomy)}});
  }
  return {{"peak_gflops", b.peak_flops * 1e-9},
          {"rows", o.rows},
          {"length", o.length},
          {"precision", to_string(o.precision)},
          {"models", std::move(models)}};
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

void steps_of(const json& bench, const CalibrateFlags& f, std::vector<MeasuredStep>& steps) {
  const std::string precision = bench.value("precision", "bf16");
  const Precision p = precision == "fp32" ? Precision::kFp32 : Precision::kBf16;
  const HardwareSpec hardware = hardware_of(f.on, p, bench.at("peak_gflops").get<double>() * 1e9);
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

void write_catalog(const CalibrateFlags& f, const HardwareSpec& hardware, const EfficiencyTable& table) {
  io::FileSystem& fs = io::real_file_system();
  std::filesystem::create_directories(f.out);
  std::istringstream before(catalog_file("accelerators.csv"));
  std::string accelerators, line;
  while (std::getline(before, line))
    if (!line.starts_with(fmt::format("{},", kName))) accelerators += line + "\n";
  io::write_file_atomic(fs, f.out + "/accelerators.csv", accelerators + accelerator_row(hardware));
  io::write_file_atomic(fs, f.out + "/efficiency.csv", table.to_csv());
}

void run(const CalibrateFlags& f) {
  std::vector<MeasuredStep> steps;
  try {
    if (f.files.empty()) steps_of(measured_by_bench(), f, steps);
    for (const std::string& file : f.files) steps_of(read_bench(file), f, steps);
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
  if (!f.out.empty()) write_catalog(f, steps.front().input.hardware, c.table);
  const AcceleratorSpec& a = steps.front().input.hardware.accelerator;
  const Efficiency e = c.table.resolve(a.family, "stoker", "");
  if (f.json) {
    json checks = json::array(), factors = json::object();
    for (const CalibrationCheck& check : c.checks)
      checks.push_back({{"model", check.model},
                        {"measured_s", check.measured_s},
                        {"predicted_s", check.predicted_s},
                        {"error", std::abs(check.predicted_s / check.measured_s - 1)},
                        {"held_out", check.held_out}});
    for (size_t k = 0; k < kWorkKinds; ++k) factors[to_string(static_cast<WorkKind>(k))] = c.factor[k];
    fmt::print("{}\n", json{{"peak_gflops", std::max(a.bf16, a.fp32).value() * 1e-9},
                            {"matmul", e[Term::kMatmul16]},
                            {"attention", e[Term::kAttention]},
                            {"time_factors", std::move(factors)},
                            {"checks", std::move(checks)},
                            {"out", f.out}}
                           .dump(2));
    return;
  }
  fmt::print("peak {:.0f} GFLOP/s, measured; of it products reach {:.0f} %, attention {:.0f} %\n\n",
             std::max(a.bf16, a.fp32).value() * 1e-9, 100 * e[Term::kMatmul16], 100 * e[Term::kAttention]);
  fmt::print("{:<20} {:>12} {:>12} {:>8}\n", "step of", "measured, s", "predicted, s", "error");
  for (const CalibrationCheck& check : c.checks)
    fmt::print("{:<20} {:>12.4g} {:>12.4g} {:>+7.1f}%  {}\n", check.model, check.measured_s,
               check.predicted_s, 100 * (check.predicted_s / check.measured_s - 1),
               check.held_out ? "calibrated on the other models" : "in sample: one model only");
  if (f.out.empty()) fmt::print("\nnothing written: --out DIR keeps it\n");
  else
    fmt::print(
        "\nwrote {0}/accelerators.csv and {0}/efficiency.csv; use them with\n  STOKER_CATALOG={0} stoker "
        "plan MODEL --on {1}:1 --set run.engine=stoker\n",
        f.out, kName);
}

}  // namespace

void add_plan_calibrate(Command& plan) {
  auto* cmd = plan.add_subcommand("calibrate",
                                  "Fit this machine's ceilings from measured steps of `stoker bench step`");
  auto flags = std::make_shared<CalibrateFlags>();
  cmd->add_option("bench", flags->files,
                  "What `stoker bench step --json` printed; absent: measured now (a minute)")
      ->type_name("FILE");
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
