#include "data/corpus/factory_recipe.h"

#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "data/corpus/language_identify.h"
#include "io/file_system.h"

namespace stoker::corpus {
namespace {
using Json = nlohmann::json;

class Table {
 public:
  Table(const toml::table& table, std::string where) : table_(table), where_(std::move(where)) {}

  template <typename T>
  T value(const char* key, T fallback) {
    used_.insert(key);
    const toml::node* node = table_.get(key);
    if (!node) return fallback;
    if constexpr (std::is_same_v<T, bool>) {
      if (const auto v = node->value_exact<bool>()) return *v;
      wrong(key, *node, "true or false");
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (const auto v = node->value_exact<std::string>()) return *v;
      wrong(key, *node, "a string");
    } else {
      if (const auto v = node->value<double>(); v && (std::is_floating_point_v<T> || node->is_integer())) {
        constexpr double kMost = std::min(9e15, static_cast<double>(std::numeric_limits<T>::max()));
        if (std::is_floating_point_v<T> || (*v >= 0 && *v <= kMost)) return static_cast<T>(*v);
      }
      wrong(key, *node, std::is_floating_point_v<T> ? "a number" : "a whole number, not negative");
    }
  }
  template <typename T>
  T share(const char* key, T fallback) {
    const T found = value(key, fallback);
    if (!(found >= 0 && found <= 1))
      fail(ErrorKind::kUsage, "{}: {} is {}: expected 0 to 1", where_, key, found);
    return found;
  }
  // A whole number of MiB, in bytes.
  uint64_t mebibytes(const char* key, uint64_t fallback, uint64_t least, uint64_t most) {
    const uint64_t found = value<uint64_t>(key, fallback);
    if (found < least || found > most)
      fail(ErrorKind::kUsage, "{}: {} is {}: expected {} to {}", where_, key, found, least, most);
    return found << 20;
  }
  std::vector<std::string> strings(const char* key) {
    used_.insert(key);
    const toml::node* node = table_.get(key);
    std::vector<std::string> out;
    if (!node) return out;
    if (const auto one = node->value_exact<std::string>()) return {*one};
    const auto* list = node->as_array();
    if (!list) wrong(key, *node, "a string or a list of strings");
    for (const auto& entry : *list) {
      const auto s = entry.value_exact<std::string>();
      if (!s) wrong(key, entry, "strings only");
      out.push_back(*s);
    }
    return out;
  }
  const toml::table* table(const char* key) {
    used_.insert(key);
    const toml::node* node = table_.get(key);
    if (!node) return nullptr;
    if (!node->is_table()) wrong(key, *node, "a table");
    return node->as_table();
  }
  // A list of tables.
  std::vector<const toml::table*> tables(const char* key, std::string_view expected) {
    used_.insert(key);
    const toml::node* node = table_.get(key);
    std::vector<const toml::table*> out;
    if (!node) return out;
    const auto* list = node->as_array();
    if (!list) wrong(key, *node, expected);
    for (const auto& entry : *list) {
      if (!entry.is_table()) wrong(key, entry, expected);
      out.push_back(entry.as_table());
    }
    return out;
  }
  // Bounds: {signal = [low, high]} or {signal = {min = x}} is too much choice: a pair, or one number for "at most".
  std::vector<QualityRule> bounds(const char* key) {
    std::vector<QualityRule> out;
    const toml::table* table = this->table(key);
    if (!table) return out;
    for (const auto& [name, node] : *table) {
      QualityRule rule;
      rule.signal = signal_by_name(name.str());
      if (rule.signal < 0) {
        std::string known;
        for (int i = 0; i < kSignalCount; ++i) known += (i ? ", " : "") + std::string(signal_name(i));
        fail(ErrorKind::kUsage, "{}: no signal '{}' in {}; there are {}", where_, name.str(), key, known);
      }
      const auto* pair = node.as_array();
      if (!pair || pair->size() != 2)
        wrong(key, node, "[low, high] for each signal; use -inf or inf for none");
      const auto low = pair->get(0)->value<double>(), high = pair->get(1)->value<double>();
      if (!low || !high || *low > *high) wrong(key, node, "two numbers, the lower first");
      rule.low = static_cast<float>(*low);
      rule.high = static_cast<float>(*high);
      out.push_back(rule);
    }
    return out;
  }
  // After everything was asked for: what nobody asked for is a mistake.
  void finish() const {
    for (const auto& [key, node] : table_)
      if (!used_.count(std::string(key.str())))
        fail(ErrorKind::kUsage, "{}: unknown key '{}' at line {}; known here: {}", where_, key.str(),
             node.source().begin.line, fmt::join(used_, ", "));
  }
  const std::string& where() const { return where_; }
  [[noreturn]] void wrong(const char* key, const toml::node& node, std::string_view expected) const {
    fail(ErrorKind::kUsage, "{}: '{}' at line {}: expected {}", where_, key, node.source().begin.line,
         expected);
  }

 private:
  const toml::table& table_;
  std::string where_;
  std::set<std::string> used_;
};

constexpr std::pair<StageKind, std::string_view> kStageNames[] = {
    {StageKind::kUnicode, "unicode"},
    {StageKind::kC4Lines, "c4_lines"},
    {StageKind::kPii, "pii"},
    {StageKind::kLanguage, "language"},
    {StageKind::kQuality, "quality"},
    {StageKind::kLabel, "label"},
    {StageKind::kDecontaminate, "decontaminate"},
    {StageKind::kExact, "exact"},
    {StageKind::kNear, "near"},
    {StageKind::kLines, "lines"}};

std::string resolved(const std::string& path, const std::string& directory) {
  if (path.empty() || path.front() == '/' || path.find("://") != std::string::npos || directory.empty())
    return path;
  return (std::filesystem::path(directory) / path).lexically_normal().string();
}

std::string rules_key(const std::vector<QualityRule>& rules) {
  std::string out;
  for (const auto& rule : rules)
    out += fmt::format("{}:{}:{};", signal_name(rule.signal), rule.low, rule.high);
  return out;
}

// The shortest decimal number that is this one; as a string, for a manifest's settings hold whole numbers only.
template <typename T>
Json plain_number(T value) {
  if (std::abs(value) < T{1e9} && std::floor(value) == value) return static_cast<int64_t>(value);
  return fmt::format("{}", value);
}

Json bounds_json(const std::vector<QualityRule>& bounds) {
  Json out = Json::object();
  for (const auto& b : bounds)
    out[std::string(signal_name(b.signal))] = {plain_number(b.low), plain_number(b.high)};
  return out;
}

void parse_quality(Table& t, StageRecipe& stage) {
  stage.rule_sets = t.strings("rules");
  for (const auto& set : stage.rule_sets)
    for (const auto& rule : quality_rule_set(set)) {
      stage.rules.push_back(rule);
      stage.rule_reasons.push_back(set);
    }
  stage.bounds = t.bounds("bounds");
  for (const auto& bound : stage.bounds) {
    bool known = false;
    for (auto& rule : stage.rules)
      if (rule.signal == bound.signal) {
        rule.low = bound.low, rule.high = bound.high;
        known = true;
      }
    if (!known) {
      stage.rules.push_back(bound);
      stage.rule_reasons.push_back("bounds");
    }
  }
  for (size_t i = 0; i < stage.rules.size(); ++i) stage.rule_reasons[i] += ": " + stage.rules[i].reason();
}

StageRecipe parse_stage(const toml::table& table, const std::string& where, const std::string& directory) {
  Table t(table, where);
  StageRecipe stage{};
  const auto use = t.value<std::string>("use", "");
  const auto* const found = std::find_if(std::begin(kStageNames), std::end(kStageNames),
                                         [&](const auto& s) { return s.second == use; });
  if (found == std::end(kStageNames)) {
    std::string known;
    for (const auto& s : kStageNames) known += (known.empty() ? "" : ", ") + std::string(s.second);
    fail(ErrorKind::kUsage, "{}: no stage '{}': expected use = one of {}", where, use, known);
  }
  stage.kind = found->first;
  switch (stage.kind) {
    case StageKind::kUnicode:
      stage.unicode.fix_double_encoding = t.value("fix_double_encoding", true);
      stage.unicode.compatibility = t.value("compatibility", false);
      stage.unicode.squeeze_blank_lines = t.value("squeeze_blank_lines", true);
      break;
    case StageKind::kC4Lines:
      stage.terminal_punctuation = t.value("terminal_punctuation", false);
      break;
    case StageKind::kPii: {
      const auto kinds = t.strings("kinds");
      if (!kinds.empty()) stage.pii.kinds.fill(false);
      for (const auto& kind : kinds) {
        bool known = false;
        for (size_t i = 0; i < stage.pii.kinds.size(); ++i)
          if (to_string(static_cast<PiiKind>(i)) == kind) stage.pii.kinds[i] = known = true;
        if (!known)
          fail(ErrorKind::kUsage, "{}: no kind '{}': there are email, ip, phone, card, key", where, kind);
      }
      stage.pii.fineweb_substitutes = t.value("fineweb_substitutes", false);
      break;
    }
    case StageKind::kLanguage:
      stage.keep_languages = t.strings("keep");
      for (const auto& code : stage.keep_languages)
        if (!is_language_code(code))
          fail(
              ErrorKind::kUsage,
              "{}: keep: '{}' is no code of a language: expected such as en, de, zh-hant, or und (undecided)",
              where, code);
      stage.min_share = t.share("min_share", 0.65f);
      break;
    case StageKind::kQuality:
      parse_quality(t, stage);
      break;
    case StageKind::kLabel:
      stage.label = t.value<std::string>("name", "");
      stage.pattern = t.value<std::string>("pattern", "");
      stage.classifier = resolved(t.value<std::string>("classifier", ""), directory);
      stage.when = t.bounds("when");
      stage.drop = t.value("drop", false);
      stage.min_probability = t.share("min_probability", 0.5f);
      if ((stage.pattern.empty() ? 0 : 1) + (stage.classifier.empty() ? 0 : 1) +
              (stage.when.empty() ? 0 : 1) !=
          1)
        fail(ErrorKind::kUsage, "{}: a label stage needs exactly one of pattern, classifier, when", where);
      if (stage.classifier.empty() && stage.label.empty())
        fail(ErrorKind::kUsage, "{}: a label stage needs a name", where);
      break;
    case StageKind::kDecontaminate:
      stage.sets = t.strings("sets");
      for (auto& set : stage.sets) set = resolved(set, directory);
      stage.n = t.value("n", 13);
      stage.max_overlap = t.share("max_overlap", 0.5f);
      if (stage.sets.empty())
        fail(ErrorKind::kUsage, "{}: decontaminate needs sets = [files of evaluation text]", where);
      if (stage.n < 5 || stage.n > 100)
        fail(ErrorKind::kUsage, "{}: n is {}: expected 5..100 words", where, stage.n);
      break;
    case StageKind::kExact:
      stage.prefer_longest = false;
      break;
    case StageKind::kNear: {
      stage.minhash = minhash_preset(t.value<std::string>("parameters", "fineweb"));
      stage.minhash.n = t.value("n", stage.minhash.n);
      stage.minhash.bands = t.value("bands", stage.minhash.bands);
      stage.minhash.rows = t.value("rows", stage.minhash.rows);
      stage.min_similarity = t.share("min_similarity", 0.0);
      const auto prefer = t.value<std::string>("prefer", "priority");
      if (prefer != "priority" && prefer != "longest")
        fail(ErrorKind::kUsage, "{}: prefer is '{}': expected priority or longest", where, prefer);
      stage.prefer_longest = prefer == "longest";
      (void)SignatureMaker(stage.minhash);  // checks the numbers
      break;
    }
    case StageKind::kLines: {
      const auto span = t.value<std::string>("span", "line");
      if (span != "line" && span != "paragraph")
        fail(ErrorKind::kUsage, "{}: span is '{}': expected line or paragraph", where, span);
      stage.span = span == "line" ? SpanKind::kLine : SpanKind::kParagraph;
      stage.min_characters = t.value("min_characters", 20);
      stage.min_documents = t.value("min_documents", 2);
      break;
    }
  }
  t.finish();
  return stage;
}

}  // namespace

std::string_view to_string(StageKind kind) {
  for (const auto& [k, name] : kStageNames)
    if (k == kind) return name;
  return "?";
}

// The number after the name is the version of the stage's code: raise it when its output changes.
std::string StageRecipe::compute_key() const {
  switch (kind) {
    case StageKind::kUnicode:
      return fmt::format("unicode/1 {} {} {}", unicode.fix_double_encoding, unicode.compatibility,
                         unicode.squeeze_blank_lines);
    case StageKind::kC4Lines:
      return fmt::format("c4_lines/1 {}", terminal_punctuation);
    case StageKind::kPii: {
      std::string out = "pii/1";
      for (const bool kind_on : pii.kinds) out += kind_on ? " 1" : " 0";
      return out + (pii.fineweb_substitutes ? " fineweb" : "");
    }
    case StageKind::kLanguage:
      return "language/2";
    case StageKind::kQuality:
      return "quality/1";
    case StageKind::kLabel:
      return !pattern.empty()      ? "label/1 pattern " + pattern
             : !classifier.empty() ? "label/1 classifier"
                                   : "quality/1";
    case StageKind::kDecontaminate:
      return fmt::format("decontaminate/1 {}", n);
    case StageKind::kExact:
      return "exact/1";
    case StageKind::kNear:
      return fmt::format("near/1 {} {} {} {} {}", minhash.unit == ShingleUnit::kWord ? "word" : "character",
                         minhash.n, minhash.bands, minhash.rows, minhash.seed);
    case StageKind::kLines:
      return fmt::format("lines/1 {} {} {}", span == SpanKind::kLine ? "line" : "paragraph", min_characters,
                         min_documents);
  }
  return "?";
}

std::string StageRecipe::full_key() const {
  return compute_key() + "|" + rules_key(rules) + "|" + settings();
}

std::string StageRecipe::settings() const {
  Json out{{"use", to_string(kind)}};
  switch (kind) {
    case StageKind::kUnicode:
      out["fix_double_encoding"] = unicode.fix_double_encoding;
      out["compatibility"] = unicode.compatibility;
      out["squeeze_blank_lines"] = unicode.squeeze_blank_lines;
      break;
    case StageKind::kC4Lines:
      out["terminal_punctuation"] = terminal_punctuation;
      break;
    case StageKind::kPii:
      out["kinds"] = Json::array();
      for (size_t i = 0; i < pii.kinds.size(); ++i)
        if (pii.kinds[i]) out["kinds"].push_back(to_string(static_cast<PiiKind>(i)));
      out["fineweb_substitutes"] = pii.fineweb_substitutes;
      break;
    case StageKind::kLanguage:
      out["keep"] = keep_languages;
      out["min_share"] = plain_number(min_share);
      break;
    case StageKind::kQuality:
      out["rules"] = rule_sets;
      if (!bounds.empty()) out["bounds"] = bounds_json(bounds);
      break;
    case StageKind::kLabel:
      out["name"] = label;
      if (!pattern.empty()) out["pattern"] = pattern;
      if (!classifier.empty()) out["classifier"] = io::name_of(classifier);
      if (!when.empty()) out["when"] = bounds_json(when);
      out["drop"] = drop;
      out["min_probability"] = plain_number(min_probability);
      break;
    case StageKind::kDecontaminate:
      out["sets"] = Json::array();
      for (const auto& set : sets) out["sets"].push_back(io::name_of(set));
      out["n"] = n;
      out["max_overlap"] = plain_number(max_overlap);
      break;
    case StageKind::kExact:
      break;
    case StageKind::kNear:
      out["parameters"] = minhash.name;
      out["n"] = minhash.n;
      out["bands"] = minhash.bands;
      out["rows"] = minhash.rows;
      out["min_similarity"] = plain_number(min_similarity);
      out["prefer"] = prefer_longest ? "longest" : "priority";
      break;
    case StageKind::kLines:
      out["span"] = span == SpanKind::kLine ? "line" : "paragraph";
      out["min_characters"] = min_characters;
      out["min_documents"] = min_documents;
      break;
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Recipe parse_recipe(std::string_view text, std::string_view file, const std::string& directory) {
  toml::table root;
  try {
    root = toml::parse(text, file);
  } catch (const toml::parse_error& e) {
    fail(ErrorKind::kUsage, "{}:{}: {}", file, e.source().begin.line, e.description());
  }
  Recipe out;
  Table t(root, std::string(file));
  out.name = t.value<std::string>("name", "corpus");
  out.output = resolved(t.value<std::string>("output", ""), directory);
  out.work = resolved(t.value<std::string>("work", ""), directory);
  if (out.work.empty()) out.work = out.output + ".work";
  out.memory_bytes = t.mebibytes("memory_mb", 512, 64, uint64_t{1} << 30);
  out.chunk_bytes = t.mebibytes("chunk_mb", 4, 1, 256);
  out.threads = t.value("threads", 0);
  for (const toml::table* table : t.tables("source", "[[source]] with two brackets: there may be several")) {
    Table s(*table, fmt::format("{}: source {}", file, out.sources.size() + 1));
    SourceRecipe source;
    source.name = s.value<std::string>("name", fmt::format("source{}", out.sources.size() + 1));
    source.paths = s.strings("paths");
    for (auto& path : source.paths) path = resolved(path, directory);
    source.format = s.value<std::string>("format", "auto");
    source.text_field = s.value<std::string>("text_field", "text");
    source.label = s.value<std::string>("label", "");
    source.priority = s.value("priority", 0.0f);
    source.weight = s.value("weight", 1.0);
    source.max_document_bytes = s.mebibytes("max_document_mb", 64, 1, 1024);
    source.main_content = s.value("main_content", true);
    s.finish();
    if (source.paths.empty()) fail(ErrorKind::kUsage, "{}: expected paths = [\"...\"]", s.where());
    if (!(source.weight >= 0 && source.weight <= 1000))
      fail(ErrorKind::kUsage, "{}: weight {}: expected 0..1000", s.where(), source.weight);
    static constexpr std::string_view kFormats[] = {"auto", "text", "html", "jsonl",
                                                    "csv",  "warc", "tar",  "parquet"};
    if (std::find(std::begin(kFormats), std::end(kFormats), source.format) == std::end(kFormats))
      fail(ErrorKind::kUsage, "{}: format '{}': expected one of {}", s.where(), source.format,
           fmt::join(kFormats, ", "));
    out.sources.push_back(std::move(source));
  }
  for (size_t i = 0; i < out.sources.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (out.sources[i].name == out.sources[j].name)
        fail(ErrorKind::kUsage, "{}: two sources are named '{}'", file, out.sources[i].name);
  for (const toml::table* table : t.tables("stages", "stages = [{use = \"unicode\"}, ...]"))
    out.stages.push_back(
        parse_stage(*table, fmt::format("{}: stage {}", file, out.stages.size() + 1), directory));
  if (const auto* shards = t.table("shards")) {
    Table s(*shards, std::string(file) + ": [shards]");
    out.tokenizer = resolved(s.value<std::string>("tokenizer", ""), directory);
    out.validation = s.value("validation", 0.0);
    out.shard_tokens = s.value<uint64_t>("max_tokens", uint64_t{1} << 28);
    s.finish();
    if (out.tokenizer.empty()) fail(ErrorKind::kUsage, "{}: [shards] needs a tokenizer", file);
    if (!(out.validation >= 0 && out.validation < 1))
      fail(ErrorKind::kUsage, "{}: [shards] validation: expected 0..1", file);
  }
  if (const auto* pack = t.table("pack")) {
    Table p(*pack, std::string(file) + ": [pack]");
    out.pack_length = p.value<uint64_t>("length", 2048);
    p.finish();
    if (out.pack_length < 2 || out.pack_length > (1u << 24))
      fail(ErrorKind::kUsage, "{}: [pack] length: expected 2..16777216", file);
    if (out.tokenizer.empty())
      fail(ErrorKind::kUsage, "{}: [pack] counts tokens: add [shards] with a tokenizer", file);
  }
  t.finish();  // before what is missing: it may be there under a wrong name
  if (out.output.empty()) fail(ErrorKind::kUsage, "{}: expected output = \"directory\"", file);
  if (out.sources.empty()) fail(ErrorKind::kUsage, "{}: expected at least one [[source]]", file);
  return out;
}

}  // namespace stoker::corpus
