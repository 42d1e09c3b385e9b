#include <memory>

#include "cli/command.h"
#include "cli/run_files.h"
#include "elastic/worker_link.h"

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
      "Example: stoker scale run 3\nThe weights do not depend on it. Surplus workers leave; missing ones "
      "come from "
      "stoker join or from the launcher.");
  cmd->callback([flags] {
    const RunAccess access = access_run(flags->run);
    elastic::CoordinatorClient client(access.coordinator, net::Tls::kAuto, access.token);
    client.scale(flags->workers);
    fmt::print("{} workers wanted\n", flags->workers);
  });
}

}  // namespace stoker::cli
