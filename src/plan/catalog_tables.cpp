#include "plan/catalog_tables.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "plan/csv.h"

namespace stoker::plan {
namespace {

constexpr int64_t kMostOfOneKind = int64_t{1} << 24;  // accelerators that one link joins
constexpr int64_t kMostOfAModel = int64_t{1} << 40;
constexpr double kMostOfAQuantity = 1e15;

double quantity(const CsvTable& t, size_t row, const char* column, double least) {
  const double v = least > 0 ? t.required_number(row, column) : t.number(row, column).value_or(0);
  if (!(v >= least && v <= kMostOfAQuantity))
    fail(ErrorKind::kData, "{}, column {}: expected a number from {} to {}, found {}", t.where(row), column,
         least, kMostOfAQuantity, v);
  return v;
}
constexpr double kAboveNothing = 1e-9;

CsvTable table_with_entries(std::string_view csv, std::string_view file) {
  CsvTable t(std::string(file), csv);
  if (t.rows() == 0)
    fail(ErrorKind::kData, "{}: expected at least one entry below the header, found none", file);
  return t;
}

// The entry's own name and its aliases; two entries of one name would hide each other.
template <typename T>
void add_names(CatalogTable<T>& all, const CsvTable& t, size_t row) {
  std::string_view aliases = t.text(row, "aliases");
  auto add = [&](std::string_view name) {
    const std::string key = plain_name(name);
    if (key.empty()) fail(ErrorKind::kData, "{}: expected a name, found '{}'", t.where(row), name);
    const auto same =
        std::find_if(all.names.begin(), all.names.end(), [&](const auto& n) { return n.first == key; });
    if (same != all.names.end() && same->second != row)
      fail(ErrorKind::kData, "{}: the name '{}' is taken by {}: give each entry its own", t.where(row), name,
           t.where(same->second));
    all.names.emplace_back(key, row);
  };
  add(t.text(row, "name"));
  while (!aliases.empty()) {
    const size_t end = std::min(aliases.find(';'), aliases.size());
    if (end) add(aliases.substr(0, end));
    aliases.remove_prefix(std::min(end + 1, aliases.size()));
  }
}

std::regex release_pattern(const CsvTable& t, size_t row) {
  const std::string text(t.text(row, "release"));
  try {
    return std::regex(text);
  } catch (const std::regex_error& e) {
    fail(ErrorKind::kData, "{}: release '{}' is no regular expression: {}", t.where(row), text, e.what());
  }
}

}  // namespace

std::string plain_name(std::string_view name) {
  std::string out;
  for (char c : name)
    if (c != ' ' && c != '-' && c != '_')
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

CatalogTable<CatalogAccelerator> parse_accelerators(std::string_view csv, std::string_view file) {
  const CsvTable t = table_with_entries(csv, file);
  CatalogTable<CatalogAccelerator> all;
  for (size_t r = 0; r < t.rows(); ++r) {
    auto rate = [&](const char* column) { return teraflops(quantity(t, r, column, 0)); };
    auto needed = [&](const char* column) { return quantity(t, r, column, kAboveNothing); };
    CatalogAccelerator a;
    a.spec.name = t.text(r, "name");
    a.spec.family = t.text(r, "family");
    if (a.spec.family.empty()) fail(ErrorKind::kData, "{}: expected a family, found a blank", t.where(r));
    a.spec.fp32 = rate("fp32_TFLOPs"), a.spec.fp16 = rate("fp16_TFLOPs"), a.spec.bf16 = rate("bf16_TFLOPs");
    a.spec.fp8 = rate("fp8_TFLOPs"), a.spec.fp4 = rate("fp4_TFLOPs");
    if (!(std::max({a.spec.fp32, a.spec.fp16, a.spec.bf16}) > FlopsPerSecond(0)))
      fail(ErrorKind::kData, "{}: expected a peak of 32-bit or 16-bit arithmetic, found none", t.where(r));
    a.spec.memory = gibibytes(needed("memory_GiB"));
    a.spec.memory_bandwidth = gigabytes_per_second(1000 * needed("memory_TBps"));
    a.spec.power = Watts(needed("power_W"));
    a.per_node = std::max<int64_t>(1, t.whole(r, "per_node", kMostOfOneKind));
    a.inside = gigabytes_per_second(needed("inside_GBps"));
    a.inside_domain = t.whole(r, "inside_domain", kMostOfOneKind);
    a.between = gigabytes_per_second(needed("between_GBps"));
    add_names(all, t, r);
    all.entries.push_back(std::move(a));
  }
  return all;
}

CatalogTable<CatalogModel> parse_models(std::string_view csv, std::string_view file) {
  const CsvTable t = table_with_entries(csv, file);
  CatalogTable<CatalogModel> all;
  for (size_t r = 0; r < t.rows(); ++r) {
    auto whole = [&](const char* column) { return t.whole(r, column, kMostOfAModel); };
    CatalogModel m;
    m.name = t.text(r, "name");
    ModelSpec& s = m.spec;
    s.layers = whole("layers"), s.hidden = whole("hidden"), s.heads = whole("heads");
    s.kv_heads = whole("kv_heads"), s.head_dim = whole("head_dim"), s.ffn = whole("ffn");
    s.vocab = whole("vocab"), s.max_positions = whole("max_positions");
    s.activation = whole("gated") ? ActivationKind::kSwiGlu : ActivationKind::kGelu;
    s.tied_embeddings = whole("tied") != 0;
    s.dense_layers = whole("dense_layers");
    s.experts = whole("experts"), s.experts_per_token = whole("experts_per_token");
    s.expert_ffn = whole("expert_ffn"), s.shared_expert_ffn = whole("shared_expert_ffn");
    if (!t.text(r, "score_scale").empty()) m.score_scale = quantity(t, r, "score_scale", kAboveNothing);
    m.scan_elements = quantity(t, r, "scan_elements", 0);
    if (t.text(r, "trained_in") == "fp8") m.precision = Precision::kFp8;
    try {
      validate(s);
    } catch (const Error& e) {
      fail(ErrorKind::kData, "{}: {}", t.where(r), e.what());
    }
    add_names(all, t, r);
    all.entries.push_back(std::move(m));
  }
  return all;
}

std::vector<SoftwareRule> parse_software(std::string_view csv, std::string_view file) {
  const CsvTable t = table_with_entries(csv, file);
  std::vector<SoftwareRule> rules;
  for (size_t r = 0; r < t.rows(); ++r) {
    auto flag = [&](const char* column) { return t.whole(r, column, 1) != 0; };
    SoftwareRule rule;
    rule.pattern = t.text(r, "pattern");
    if (rule.pattern.empty()) fail(ErrorKind::kData, "{}: expected a pattern, found a blank", t.where(r));
    rule.release = t.text(r, "release");
    if (rule.release.find('(') != std::string::npos) {
      rule.release_pattern = release_pattern(t, r);
      rule.release.clear();
    }
    EngineHabits& h = rule.habits;
    h.engine = t.text(r, "engine");
    h.lineage = t.text(r, "lineage");
    const std::optional<Recompute> recompute = parse_recompute(t.text(r, "recompute"));
    if (!recompute) fail(ErrorKind::kData, "{}: recompute must be none, selective or full", t.where(r));
    h.recompute = *recompute;
    h.zero_stage = t.whole(r, "zero", 3);
    h.flash_attention = flag("flash"), h.dropout = flag("dropout");
    h.fp32_parameters = flag("fp32_parameters"), h.selective_ops = flag("selective_ops");
    h.gradient_bytes = quantity(t, r, "gradient_bytes", kAboveNothing);
    h.logits_split = !flag("logits_whole"), h.loads_whole = flag("loads_whole");
    h.sequence_length = t.whole(r, "sequence_length", kMostOfAModel);
    h.vocab = t.whole(r, "vocab", kMostOfAModel), h.chunks = t.whole(r, "chunks", kMostOfAModel);
    rules.push_back(std::move(rule));
  }
  return rules;
}

}  // namespace stoker::plan
