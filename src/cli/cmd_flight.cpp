#include <fmt/core.h>

#include <memory>

#include "base/error.h"
#include "cli/command.h"
#include "cli/flight_report.h"

namespace stoker::cli {

void add_flight(Command& app) {
  auto* cmd = app.add_subcommand("flight", "Who was in which collective when a run lost a worker");
  struct Flags {
    std::string run;
    bool now = false, as_json = false;
  };
  auto flags = std::make_shared<Flags>();
  cmd->add_option("run", flags->run, "Run directory, of a run that runs or has ended")->required();
  cmd->add_flag("--now", flags->now, "What the records say now, also while all is well");
  cmd->add_flag("--json", flags->as_json, "Print JSON (docs/json.md)");
  cmd->footer(
      "Example: stoker flight run\nThe coordinator gathers the workers' flight records in the moment a "
      "generation breaks. Collectives "
      "carry the same number on every rank: one that is running here and not begun there shows who is "
      "missing.");
  cmd->callback([flags] {
    const nlohmann::json record = flags->now ? gather_flight(flags->run) : last_failure(flags->run);
    if (record.is_null())
      fail(ErrorKind::kUsage,
           "{} has no failure on record. With --now the present state is shown; expected the directory of a "
           "run of several workers.",
           flags->run);
    if (record["workers"].empty() && flags->now)
      fail(ErrorKind::kUsage, "{} has no flight records: expected the directory of a run of several workers",
           flags->run);
    if (flags->as_json) fmt::print("{}\n", record.dump(2));
    else fmt::print("{}", flight_page(record));
  });
}

}  // namespace stoker::cli
