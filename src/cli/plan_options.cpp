#include "cli/plan_options.h"

#include <filesystem>

#include "base/error.h"

namespace stoker::cli {

std::shared_ptr<PlanOptions> add_plan_options(Command& cmd, bool file_required) {
  auto o = std::make_shared<PlanOptions>();
  auto* file = cmd.add_option("plan", o->file, "Plan file (TOML), or the name of a model");
  if (file_required) file->required();
  cmd.add_option("--on", o->on, "Hardware and how many: h100:1024");
  cmd.add_option("--set", o->settings,
                 "Change a setting: run.precision=fp8, figures.rent.egress_per_gb=0; repeat")
      ->one_each()
      ->type_name("KEY=VALUE");
  cmd.add_option("--tokens", o->tokens, "Tokens to train on: 15T, 2e11")->count_suffix();
  cmd.add_option("--path", o->path,
                 "Deployment path: on-demand, reserved-1y, spot, on-premises, hyperscale ...");
  cmd.add_option("--price", o->price, "Rent in USD per accelerator-hour, instead of the catalog's");
  cmd.add_option("--prices", o->prices,
                 "SkyPilot price catalog (CSV), instead of the built-in offers; repeat")
      ->one_each();
  cmd.add_option("--region", o->region, "Grid region: us, fr, us-iowa ...");
  cmd.add_option("--trials", o->trials, "Simulated runs for the time to finish")->range(1, 100000);
  cmd.add_flag("--json", o->json, "Print JSON (docs/json.md)");
  return o;
}

plan::PlanRequest plan_request(const PlanOptions& o, const std::vector<std::string>& more) {
  if (o.file.empty())
    fail(ErrorKind::kUsage,
         "no plan: give a plan file or a model's name, as in: stoker plan llama3-8b --on h100:8");
  std::error_code ignored;
  const bool is_plan = std::filesystem::is_regular_file(o.file, ignored) && !o.file.ends_with(".json");
  if (!is_plan && o.file.ends_with(".toml"))
    fail(ErrorKind::kUsage, "no plan file '{}': recipes/plan/ has examples", o.file);
  std::vector<std::string> settings;  // later ones win
  const auto text = [&](const char* key, const std::string& value) {
    if (!value.empty()) settings.push_back(fmt::format("{}=\"{}\"", key, value));
  };
  if (!is_plan) text("model", o.file);
  settings.insert(settings.end(), o.settings.begin(), o.settings.end());
  text("hardware.on", o.on);
  text("site.region", o.region);
  text("money.path", o.path);
  if (o.tokens) settings.push_back(fmt::format("tokens={:.17g}", *o.tokens));
  if (o.price) settings.push_back(fmt::format("money.price_per_hour={:.17g}", *o.price));
  settings.insert(settings.end(), more.begin(), more.end());
  plan::PlanRequest request =
      is_plan ? plan::read_plan_file(o.file, settings) : plan::parse_plan("", o.file, settings);
  if (!o.prices.empty()) {
    if (request.price)
      fail(ErrorKind::kUsage, "money.price_per_hour = {} contradicts --prices: give the price or the catalog",
           *request.price);
    request.price_files = o.prices;
  }
  return request;
}

}  // namespace stoker::cli
