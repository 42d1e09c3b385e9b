// cli/plan_options.h
// The options that the plan commands share, and the request that they make.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "plan/assess.h"

namespace stoker::cli {

struct PlanOptions {
  std::string file;  // a plan file, or a model's name
  std::string on, region, path, html;
  std::vector<std::string> settings, prices;
  std::optional<double> price, tokens;
  int trials = 1000;
  bool json = false;
};

std::shared_ptr<PlanOptions> add_plan_options(Command& cmd, bool file_required);
// Settings of the options come after the file's own and win.
plan::PlanRequest plan_request(const PlanOptions& options, const std::vector<std::string>& more = {});

}  // namespace stoker::cli
