#include "plan/error_bands.h"

#include <array>
#include <cmath>
#include <map>

#include "base/error.h"
#include "plan/catalog_files.h"
#include "plan/csv.h"

namespace stoker::plan {
namespace {

constexpr size_t kEnough = 15;  // runs that a 90th percentile is taken over

std::string_view kind_of_run(const RunSpec& run) {
  if (trains_adapters(run)) return "adapters";
  return run.model.experts ? "experts" : "dense";
}

// From the narrowest to the widest; runs of engines that the fit knew, or not.
std::array<std::string, 4> groups_of(const PlanInput& in, bool known_engine) {
  const std::string_view kind = kind_of_run(in.run);
  const std::string& family = in.hardware.accelerator.family;
  if (!known_engine)
    return {fmt::format("other software on {}, {}", family, kind), fmt::format("other software, {}", kind),
            "other software", "all"};
  return {fmt::format("{} on {}, {}", in.engine, family, kind), fmt::format("{}, {}", in.engine, kind),
          fmt::format("{}, {}", family, kind), "all"};
}

const std::map<std::string, ErrorBand, std::less<>>& table() {
  static const std::map<std::string, ErrorBand, std::less<>> all = [] {
    std::map<std::string, ErrorBand, std::less<>> out;
    const CsvTable t("error_bands.csv", catalog_file("error_bands.csv"));
    for (size_t r = 0; r < t.rows(); ++r) {
      ErrorBand b;
      b.group = t.text(r, "group");
      b.runs = static_cast<size_t>(t.required_number(r, "runs"));
      b.median = t.required_number(r, "median");
      b.p90 = t.required_number(r, "p90");
      if (!(b.median >= 0 && b.median <= b.p90))
        fail(ErrorKind::kData, "{}: expected 0 <= median <= p90, found {} and {}", t.where(r), b.median,
             b.p90);
      out[b.group] = b;
    }
    if (!out.contains("all")) fail(ErrorKind::kData, "error_bands.csv: no row of the group 'all'");
    return out;
  }();
  return all;
}

void collect(const Validation& v, bool known_engine, std::vector<ErrorBand>& out) {
  std::map<std::string, std::vector<std::pair<double, double>>> errors;
  for (const RowResult& r : v.rows) {
    if (!r.compared) continue;
    for (const std::string& group : groups_of(r.run->input, known_engine))
      if (known_engine || group != "all") errors[group].emplace_back(r.error, 1);
  }
  for (const auto& [group, list] : errors)
    if (list.size() >= kEnough || group == "all")
      out.push_back({group, list.size(), weighted_quantile(list, 0.5), weighted_quantile(list, 0.9)});
}

}  // namespace

ErrorBand error_band(const PlanInput& input) {
  const bool known = !input.engine.empty() && fitted_efficiency().knows_engine(input.engine);
  for (const std::string& group : groups_of(input, known))
    if (const auto found = table().find(group); found != table().end()) return found->second;
  return table().at("all");
}

std::vector<ErrorBand> error_bands(const Validation& configurations, const Validation& sources) {
  std::vector<ErrorBand> out;
  collect(configurations, true, out);
  collect(sources, false, out);
  return out;
}

std::string error_bands_csv(const std::vector<ErrorBand>& bands) {
  std::string out = "group,runs,median,p90\n";
  for (const ErrorBand& b : bands)
    out += fmt::format("\"{}\",{},{:.4f},{:.4f}\n", b.group, b.runs, b.median, b.p90);
  return out;
}

}  // namespace stoker::plan
