#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/load_model.h"
#include "train/bench_step.h"

namespace stoker::cli {
namespace {

void print(const train::StepBench& b, const train::StepBenchOptions& o) {
  fmt::print("matrix-product peak of this machine, {}: {:.0f} GFLOP/s\n", to_string(o.precision),
             b.peak_flops * 1e-9);
  for (const auto& m : b.models) {
    fmt::print(
        "\n{}  {} x {} tokens a step\n  {:.1f} tokens/s   {:.3f} s a step   MFU {:.1f} % of that peak\n",
        m.name, o.rows, o.length, m.tokens_per_s, m.step_s, m.mfu * 100);
    for (const auto& part : m.anatomy) fmt::print("  {:<32} {:5.1f} %\n", part.what, part.share * 100);
  }
}

}  // namespace

void add_bench_step(Command& bench_parent) {
  auto* cmd =
      bench_parent.add_subcommand("step", "Whole training steps against this machine's matrix-product peak");
  auto o = std::make_shared<train::StepBenchOptions>();
  auto json = std::make_shared<bool>(false);
  auto precision = std::make_shared<std::string>("bf16");
  cmd->add_option("--model", o->presets, "Presets to time")->capture_default_str();
  cmd->add_option("--rows", o->rows, "Sequences a step")->capture_default_str()->positive();
  cmd->add_option("--length", o->length, "Tokens a sequence")->capture_default_str()->positive();
  cmd->add_option("--steps", o->steps, "Timed steps; the median counts")->capture_default_str()->positive();
  cmd->add_option("--precision", *precision, "bf16 or fp32")->capture_default_str();
  cmd->add_option("--kernel", o->kernels, "Force candidates: op=candidate,...");
  cmd->add_flag("--json", *json, "Print JSON (docs/json.md)");
  cmd->footer("Example:\n  stoker bench step --model llama-124m --steps 5");
  cmd->callback([o, json, precision] {
    o->precision = precision_from(*precision);
    const train::StepBench b = train::bench_step(*o);
    if (!*json) return print(b, *o);
    nlohmann::json models = nlohmann::json::array();
    for (const auto& m : b.models) {
      nlohmann::json parts = nlohmann::json::object();
      for (const auto& part : m.anatomy) parts[part.what] = part.share;
      models.push_back({{"name", m.name},
                        {"tokens_per_s", m.tokens_per_s},
                        {"mfu", m.mfu},
                        {"step_s", m.step_s},
                        {"anatomy", parts}});
    }
    fmt::print("{}\n", nlohmann::json{{"peak_gflops", b.peak_flops * 1e-9},
                                      {"rows", o->rows},
                                      {"length", o->length},
                                      {"precision", to_string(o->precision)},
                                      {"models", models}}
                           .dump(2));
  });
}

}  // namespace stoker::cli
