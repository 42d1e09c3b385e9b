#include <fmt/ranges.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "cli/chaos_experiment.h"
#include "cli/command.h"

namespace stoker::cli {
namespace {

using Json = nlohmann::json;

struct ChaosFlags {
  ChaosOptions options;
  bool as_json = false, quiet = false;
};

Json to_json(const ChaosVerdict& v, bool passed) {
  Json faults = Json::array(), kinds = Json::object();
  for (const FaultRecord& f : v.faults) {
    kinds[f.kind] = kinds.value(f.kind, 0) + 1;
    faults.push_back({{"kind", f.kind},
                      {"victim", f.victim},
                      {"named_s", f.named_s},
                      {"recovery_s", f.recovery_s},
                      {"said", f.said},
                      {"batches_again", f.batches_again},
                      {"read_checkpoint", f.read_checkpoint}});
  }
  return {{"faults", v.faults.size()},
          {"kinds", kinds},
          {"left_out", v.left_out},
          {"inflicted_again", v.inflicted_again},
          {"identical", v.identical},
          {"steps", v.steps},
          {"samples_lost", v.lost},
          {"samples_repeated", v.repeated},
          {"recovery_s_median", v.recovery_median("")},
          {"recovery_kill_s_median", v.recovery_median("kill")},
          {"unnamed_culprits", v.unnamed()},
          {"checkpoints_read", v.checkpoints_read()},
          {"batches_again_most", v.most_batches_again()},
          {"passed", passed},
          {"weights_undisturbed", v.undisturbed},
          {"weights_disturbed", v.disturbed},
          {"disturbed_s", v.disturbed_s},
          {"undisturbed_s", v.undisturbed_s},
          {"each", faults}};
}

void print(const ChaosVerdict& v, bool passed) {
  struct Sum {
    int count = 0;
    double slowest_named = 0;
  };
  std::map<std::string, Sum> kinds;
  for (const FaultRecord& f : v.faults) {
    Sum& sum = kinds[f.kind];
    ++sum.count;
    sum.slowest_named = f.named_s < 0 ? 1e9 : std::max(sum.slowest_named, f.named_s);
  }
  fmt::print("{:<16} {:>6} {:>17} {:>16}\n", "fault", "times", "named within", "median recovery");
  for (const auto& [kind, sum] : kinds)
    fmt::print("{:<16} {:>6} {:>15} s {:>14.2f} s\n", kind, sum.count,
               sum.slowest_named < 1e8 ? fmt::format("{:.2f}", sum.slowest_named) : "never",
               v.recovery_median(kind));
  fmt::print(
      "faults    {} in {}, undisturbed {}\nweights   after step {}: {} {} {}\n"
      "samples   {} lost, {} repeated, {} batches\nrecovery  median {:.2f} s, after kill -9 {:.2f} s; no "
      "finished batch done "
      "again: {}; checkpoints read: {}\nculprits  {} not named within 10 s\n{}\n",
      v.faults.size(), human_duration(v.disturbed_s), human_duration(v.undisturbed_s), v.steps, v.disturbed,
      v.identical ? "identical to" : "DIFFER FROM", v.undisturbed, v.lost, v.repeated, v.batches,
      v.recovery_median(""), v.recovery_median("kill"), v.most_batches_again() == 0 ? "yes" : "NO",
      v.checkpoints_read(), v.unnamed(), passed ? "passed" : "FAILED");
}

}  // namespace

void add_chaos(Command& app) {
  auto* cmd = app.add_subcommand(
      "chaos", "Prove that a run survives: kill, stop, cut off and corrupt its workers, compare the weights");
  auto flags = std::make_shared<ChaosFlags>();
  ChaosOptions& o = flags->options;
  cmd->add_option("recipe", o.recipe, "The run as TOML; its length does not matter")->required();
  cmd->add_option("--kills,--faults", o.faults, "Faults (default 20)")->range(1, 100000);
  cmd->add_option("-n,--workers", o.workers, "Workers (default 4)")->range(2, 64);
  cmd->add_option("--kinds", o.kinds,
                  fmt::format("Of: {} (default all; partition needs root)", fmt::join(chaos_kinds(), " ")));
  cmd->add_option("--zero", o.zero_stage, "With layout.zero_stage (0 to 3)")->range(0, 3);
  cmd->add_option("--seed", o.seed, "Of the choice of faults");
  cmd->add_option("--run", o.run, "Directory for the runs; emptied first (default chaos)");
  cmd->add_option("--set", o.set, "Override a key of the recipe")->one_each();
  cmd->add_flag("--json", flags->as_json, "Print JSON (docs/json.md)");
  cmd->add_flag("--quiet", flags->quiet, "Only the verdict");
  cmd->footer(
      "Example: stoker chaos recipe.toml --kills 200\n"
      "         stoker chaos recipe.toml --set layout.pipeline=2 --kinds kill stop drop\n"
      "The disturbed run lasts until all faults are in; then one worker trains undisturbed to the same "
      "step.");
  cmd->callback([flags] {
    flags->options.say = [quiet = flags->quiet](const std::string& line) {
      if (!quiet) fmt::print(stderr, "stoker: {}\n", line);
    };
    const ChaosVerdict v = run_chaos(flags->options);
    const bool passed = v.passed(flags->options.faults);
    if (flags->as_json) fmt::print("{}\n", to_json(v, passed).dump(2));
    else print(v, passed);
    if (!passed) throw ExitWith(exit_code(ErrorKind::kInternal));
  });
}

}  // namespace stoker::cli
