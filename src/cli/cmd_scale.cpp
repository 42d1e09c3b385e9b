#include <memory>

#include "cli/command.h"
#include "cli/run_files.h"

namespace stoker::cli {

void add_scale(Command& app) {
  auto* cmd = app.add_subcommand("scale", "Shrink or grow a running run at its next step");
  struct Flags {
    std::string run;
    int workers = 0;
  };
  auto flags = std::make_shared<Flags>();
  cmd->add_option("run", flags->run, "Run directory")->required();
  cmd->add_option("workers", flags->workers, "Workers wanted")->required()->range(1, 4096);
  cmd->footer(
      "Example: stoker scale run 3\nThe weights do not depend on it. Surplus workers leave. For missing ones "
      "a "
      "run takes those that wait (stoker join); where there are none its launcher starts them.");
  cmd->callback([flags] {
    RunLine(flags->run).ask([&](auto& client) { client.scale(flags->workers); });
    fmt::print("{} worker{} wanted\n", flags->workers, flags->workers == 1 ? "" : "s");
  });
}

}  // namespace stoker::cli
