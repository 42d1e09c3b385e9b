#include "plan/catalog.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <regex>

#include "base/edit_distance.h"
#include "base/error.h"
#include "plan/catalog_files.h"
#include "plan/catalog_tables.h"

namespace stoker::plan {
namespace {

const CatalogTable<CatalogAccelerator>& accelerators() {
  static const CatalogTable<CatalogAccelerator> all =
      parse_accelerators(catalog_file("accelerators.csv"), "accelerators.csv");
  return all;
}
const CatalogTable<CatalogModel>& models() {
  static const CatalogTable<CatalogModel> all = parse_models(catalog_file("models.csv"), "models.csv");
  return all;
}

const std::vector<SoftwareRule>& software() {
  static const std::vector<SoftwareRule> all = parse_software(catalog_file("software.csv"), "software.csv");
  return all;
}

template <typename T>
[[noreturn]] void unknown(const char* what, std::string_view name, const CatalogTable<T>& all,
                          const std::vector<std::string>& names) {
  std::vector<std::string> spellings;  // aliases too: the nearest may be one
  for (const auto& [spelling, entry] : all.names) spellings.push_back(spelling);
  std::vector<std::string> offered;
  for (const std::string& spelling : nearest_names(name, spellings, spellings.size())) {
    const T* entry = all.find(spelling);
    const std::string& official = names[static_cast<size_t>(entry - all.entries.data())];
    if (std::find(offered.begin(), offered.end(), official) == offered.end()) offered.push_back(official);
    if (offered.size() == 4) break;
  }
  fail(ErrorKind::kUsage, "unknown {} '{}'. Nearest: {}", what, name, fmt::join(offered, ", "));
}

}  // namespace

ActivationStyle EngineHabits::style() const {
  ActivationStyle s;
  s.dropout_masks = dropout;
  s.fp32_parameters = fp32_parameters;
  s.selective_ops = selective_ops;
  s.logits_split = logits_split;
  return s;
}

const CatalogAccelerator* lookup_accelerator(std::string_view name) { return accelerators().find(name); }
const CatalogModel* lookup_model(std::string_view name) { return models().find(name); }

const CatalogAccelerator& find_accelerator(std::string_view name) {
  if (const CatalogAccelerator* found = lookup_accelerator(name)) return *found;
  unknown("accelerator", name, accelerators(), accelerator_names());
}
const CatalogModel& find_model(std::string_view name) {
  if (const CatalogModel* found = lookup_model(name)) return *found;
  unknown("model", name, models(), model_names());
}

std::vector<std::string> accelerator_names() {
  std::vector<std::string> names;
  for (const CatalogAccelerator& a : accelerators().entries) names.push_back(a.spec.name);
  return names;
}
std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const CatalogModel& m : models().entries) names.push_back(m.name);
  return names;
}

HardwareSpec make_hardware(const CatalogAccelerator& a, int64_t count, int64_t per_node,
                           BytesPerSecond between) {
  HardwareSpec h;
  h.accelerator = a.spec;
  h.accelerators = count;
  h.accelerators_per_node = per_node > 0 ? per_node : a.per_node;
  // A domain wider than a node (a rack of NVLink) stays as wide as the maker built it.
  int64_t domain = a.inside_domain == 0 ? count : std::max(a.inside_domain, int64_t{1});
  if (a.inside_domain != 0 && a.inside_domain <= a.per_node) domain = h.accelerators_per_node;
  const bool all_inside = a.inside_domain == 0;
  h.levels.push_back({"inside", all_inside ? 0 : domain, a.inside, Seconds(5e-6)});
  if (!all_inside)
    h.levels.push_back({"between", 0, between > BytesPerSecond(0) ? between : a.between, Seconds(1e-5)});
  return h;
}

HardwareSpec parse_hardware(std::string_view text) {
  const size_t colon = text.rfind(':');
  int64_t count = 1;
  if (colon != std::string_view::npos) {
    const std::string_view number = text.substr(colon + 1);
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), count);
    if (error != std::errc() || end != number.data() + number.size() || count < 1 ||
        count > (int64_t{1} << 24))
      fail(ErrorKind::kUsage,
           "hardware '{}': expected NAME:COUNT with a count from 1 to 2^24, like h100:1024", text);
  }
  return make_hardware(find_accelerator(text.substr(0, colon)), count);
}

const EngineHabits& habits_of(std::string_view engine) {
  static const EngineHabits average = [] {
    EngineHabits h;
    h.gradient_bytes = 4;
    return h;
  }();
  for (const SoftwareRule& rule : software())
    if (!engine.empty() && rule.habits.engine == engine) return rule.habits;
  static const std::map<std::string, EngineHabits, std::less<>> others = [] {
    std::map<std::string, EngineHabits, std::less<>> all;
    for (const SoftwareRule& rule : software()) {
      if (rule.habits.lineage.empty()) continue;
      EngineHabits h = average;
      h.lineage = rule.habits.lineage;
      h.engine = kOtherSoftware + h.lineage;
      all[h.engine] = h;
    }
    return all;
  }();
  const auto other = others.find(engine);
  return other == others.end() ? average : other->second;
}

std::vector<std::string> engine_names() {
  std::vector<std::string> names;
  for (const SoftwareRule& rule : software())
    for (const std::string& name : {rule.habits.engine, kOtherSoftware + rule.habits.lineage})
      if (!name.empty() && name != kOtherSoftware &&
          std::find(names.begin(), names.end(), name) == names.end())
        names.push_back(name);
  return names;
}

void require_engine(std::string_view engine) {
  const std::vector<std::string> names = engine_names();
  if (std::find(names.begin(), names.end(), engine) == names.end())
    fail(ErrorKind::kUsage, "unknown engine '{}'. Nearest: {}. Leave it out for an average one", engine,
         fmt::join(nearest_names(engine, names, 4), ", "));
}

SoftwareMatch identify_software(std::string_view source_text) {
  std::string lower;
  for (char c : source_text) lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const SoftwareRule& rule : software()) {
    if (lower.find(rule.pattern) == std::string::npos) continue;
    SoftwareMatch match{rule.habits, rule.release, true};
    if (rule.release_pattern) {
      std::match_results<std::string_view::const_iterator> groups;
      if (std::regex_search(source_text.begin(), source_text.end(), groups, *rule.release_pattern))
        for (size_t g = 1; g < groups.size() && match.release.empty(); ++g)
          if (groups[g].matched) match.release = rule.habits.engine + " " + groups[g].str();
    }
    return match;
  }
  return {habits_of(""), "", false};
}

std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& known,
                                       size_t most) {
  std::vector<std::pair<size_t, std::string>> ranked;
  const std::string key = plain_name(name);
  for (const std::string& candidate : known) {
    const std::string other = plain_name(candidate);
    size_t distance = edit_distance(key, other);
    if (!key.empty() && other.find(key) != std::string::npos) distance = 0;
    ranked.emplace_back(distance, candidate);
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](auto& a, auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(most, ranked.size()); ++i) names.push_back(ranked[i].second);
  return names;
}

}  // namespace stoker::plan
