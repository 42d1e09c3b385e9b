#include "plan/efficiency.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "plan/catalog.h"
#include "plan/catalog_files.h"
#include "plan/csv.h"

namespace stoker::plan {
namespace {

struct TermFact {
  std::string_view name;
  double prior;
  std::string_view unit, what;
};
constexpr TermFact kFacts[] = {
#define X(id, name, prior, unit, what) {name, prior, unit, what},
    STOKER_EFFICIENCY_TERMS(X)
#undef X
};
constexpr std::string_view kScopeNames[] = {"global", "family",  "lineage",
                                            "engine", "release", "engine_on_family"};

template <typename E, size_t N, typename Name>
std::optional<E> parse_name(std::string_view text, const Name (&names)[N]) {
  for (size_t i = 0; i < N; ++i) {
    std::string_view known;
    if constexpr (std::is_same_v<Name, TermFact>) known = names[i].name;
    else known = names[i];
    if (known == text) return static_cast<E>(i);
  }
  return std::nullopt;
}

// A share cannot exceed the whole however the parts of its logarithm add up.
bool is_share(Term t) {
  switch (t) {
    case Term::kMatmul16:
    case Term::kMatmul8:
    case Term::kMatmul4:
    case Term::kMatmul32:
    case Term::kAttention:
    case Term::kMemory:
    case Term::kInside:
    case Term::kBetween:
    case Term::kTensorExposed:
    case Term::kContextExposed:
    case Term::kExpertExposed:
    case Term::kDataExposed:
    case Term::kPipelineExposed:
    case Term::kUsable:
      return true;
    default:
      return false;
  }
}

constexpr std::string_view kReference = "H100";

std::vector<MeasuredCeiling> load_ceilings() {
  const CsvTable t("measured_ceilings.csv", catalog_file("measured_ceilings.csv"));
  std::vector<MeasuredCeiling> all;
  std::array<double, kTerms> reference{};
  for (size_t r = 0; r < t.rows(); ++r) {
    const auto term = parse_name<Term>(t.text(r, "term"), kFacts);
    if (!term) fail(ErrorKind::kData, "{}: unknown term '{}'", t.where(r), t.text(r, "term"));
    MeasuredCeiling c{.term = *term, .family = std::string(t.text(r, "family"))};
    c.measured = t.required_number(r, "measured"), c.peak = t.required_number(r, "peak");
    if (!(c.measured > 0 && c.peak > 0))
      fail(ErrorKind::kData, "{}: expected measured and peak above 0", t.where(r));
    c.reference = c.family == kReference;
    if (c.reference) reference[static_cast<size_t>(c.term)] = c.measured / c.peak;
    all.push_back(c);
  }
  for (MeasuredCeiling& c : all) {
    const double of = reference[static_cast<size_t>(c.term)];
    // nothing to compare with: the share itself over the prior
    c.over_reference = c.measured / c.peak / (of > 0 ? of : kFacts[static_cast<size_t>(c.term)].prior);
  }
  return all;
}

}  // namespace

const std::vector<MeasuredCeiling>& measured_ceilings() {
  static const std::vector<MeasuredCeiling> all = load_ceilings();
  return all;
}

std::string_view name_of(Term term) { return kFacts[static_cast<size_t>(term)].name; }
std::string_view name_of(Scope scope) { return kScopeNames[static_cast<size_t>(scope)]; }

EfficiencyTable::EfficiencyTable() {
  for (int t = 0; t < kTerms; ++t)
    set(static_cast<Term>(t), Scope::kGlobal, "", std::log(kFacts[static_cast<size_t>(t)].prior));
  // What a chip reaches in isolation, over what the reference chip does: where a family starts from.
  for (const MeasuredCeiling& c : measured_ceilings())
    if (!c.reference) set(c.term, Scope::kFamily, c.family, std::log(c.over_reference));
  // Processors multiply narrow matrices nearly as fast as wide ones; no published row tells that.
  set(Term::kTile, Scope::kFamily, "CPU-Zen5", std::log(0.1));
}

void EfficiencyTable::set(Term term, Scope scope, std::string_view key, double log_value) {
  by_key_[static_cast<size_t>(scope)][std::string(key)][static_cast<size_t>(term)] = log_value;
  for (EfficiencyRow& row : rows_)
    if (row.term == term && row.scope == scope && row.key == key) {
      row.log_value = log_value;
      return;
    }
  rows_.push_back({term, scope, std::string(key), log_value});
}

double EfficiencyTable::get(Term term, Scope scope, std::string_view key) const {
  const auto& map = by_key_[static_cast<size_t>(scope)];
  const auto found = map.find(std::string(key));
  return found == map.end() ? 0 : found->second[static_cast<size_t>(term)];
}

Efficiency EfficiencyTable::resolve(std::string_view family, std::string_view engine,
                                    std::string_view release) const {
  std::array<double, kTerms> logs{};
  auto add = [&](Scope scope, const std::string& key) {
    const auto& map = by_key_[static_cast<size_t>(scope)];
    if (const auto found = map.find(key); found != map.end())
      for (size_t t = 0; t < kTerms; ++t) logs[t] += found->second[t];
  };
  add(Scope::kGlobal, "");
  add(Scope::kFamily, std::string(family));
  add(Scope::kLineage, habits_of(engine).lineage);
  add(Scope::kEngine, std::string(engine));
  add(Scope::kRelease, std::string(release));
  add(Scope::kEngineOnFamily, fmt::format("{}|{}", engine, family));
  Efficiency e;
  for (size_t t = 0; t < kTerms; ++t) {
    e.value[t] = std::exp(logs[t]);
    if (is_share(static_cast<Term>(t))) e.value[t] = std::min(e.value[t], 1.0);
  }
  return e;
}

bool EfficiencyTable::knows_engine(std::string_view engine) const {
  return by_key_[static_cast<size_t>(Scope::kEngine)].contains(std::string(engine));
}

EfficiencyTable EfficiencyTable::parse(std::string_view csv, std::string_view name) {
  const CsvTable t{std::string(name), csv};
  EfficiencyTable table;
  for (size_t r = 0; r < t.rows(); ++r) {
    const auto term = parse_name<Term>(t.text(r, "term"), kFacts);
    const auto scope = parse_name<Scope>(t.text(r, "scope"), kScopeNames);
    if (!term || !scope)
      fail(ErrorKind::kData, "{}: unknown term '{}' or scope '{}'", t.where(r), t.text(r, "term"),
           t.text(r, "scope"));
    const double value = t.required_number(r, "value");
    if (!(value > 0)) fail(ErrorKind::kData, "{}: value is {}, expected above 0", t.where(r), value);
    table.set(*term, *scope, t.text(r, "key"), std::log(value));
  }
  return table;
}

std::string EfficiencyTable::to_csv() const {
  std::vector<EfficiencyRow> sorted = rows_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const EfficiencyRow& a, const EfficiencyRow& b) {
    if (a.scope != b.scope) return a.scope < b.scope;
    if (a.key != b.key) return a.key < b.key;
    return a.term < b.term;
  });
  std::string out = "term,scope,key,value,unit,what\n";
  for (const EfficiencyRow& row : sorted) {
    const TermFact& fact = kFacts[static_cast<size_t>(row.term)];
    const double value = std::exp(row.log_value);
    if (row.scope != Scope::kGlobal && std::abs(row.log_value) < 5e-4) continue;  // says nothing
    out += fmt::format("{},{},{},{:.5g},{},\"{}\"\n", fact.name, name_of(row.scope), row.key, value,
                       row.scope == Scope::kGlobal ? fact.unit : "factor", fact.what);
  }
  return out;
}

const EfficiencyTable& fitted_efficiency() {
  static const EfficiencyTable table =
      EfficiencyTable::parse(catalog_file("efficiency.csv"), "efficiency.csv");
  return table;
}

}  // namespace stoker::plan
