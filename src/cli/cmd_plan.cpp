#include "cli/command.h"

namespace stoker::cli {

void add_plan(CLI::App& app) {
  auto* plan = app.add_subcommand("plan", "Know before you spend: memory, time and what binds");
  plan->require_subcommand(1);
  add_plan_validate(*plan);
  add_plan_fit(*plan);
  add_plan_validate_energy(*plan);
}

}  // namespace stoker::cli
