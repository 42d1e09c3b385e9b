#include "plan/plan_file.h"

#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <sstream>

#include "base/error.h"
#include "plan/catalog.h"
#include "plan/catalog_files.h"
#include "plan/predict.h"
#include "spec/hf_config.h"
#include "spec/parameter_table.h"
#include "spec/presets.h"

namespace stoker::plan {
namespace {

constexpr int64_t kMostOfAnyCount = 1'000'000'000'000'000;
constexpr double kMostOfAnyNumber = 1e18;  // of tokens, dollars, bytes: beyond it a unit is wrong

// One table of the file: hands out its keys and afterwards refuses those that nobody asked for.
class Section {
 public:
  Section(const toml::table* table, std::string name, std::string where)
      : table_(table), name_(std::move(name)), where_(std::move(where)) {}

  std::optional<std::string> text(const char* key) {
    const toml::node* node = find(key);
    if (!node) return std::nullopt;
    if (const auto value = node->value_exact<std::string>()) return value;
    wrong(key, "text in quotes");
  }
  std::optional<double> number(const char* key, double least = 0, double most = kMostOfAnyNumber) {
    const toml::node* node = find(key);
    if (!node) return std::nullopt;
    const auto value = node->is_number() ? node->value<double>() : std::nullopt;
    if (!value || !std::isfinite(*value)) wrong(key, "a number");
    if (*value < least)
      fail(ErrorKind::kUsage, "{}: {} = {}: expected at least {}", where_, full(key), *value, least);
    if (*value > most)
      fail(ErrorKind::kUsage, "{}: {} = {}: expected at most {}", where_, full(key), *value, most);
    return value;
  }
  std::optional<int64_t> count(const char* key, int64_t least = 1, int64_t most = kMostOfAnyCount) {
    const auto value = number(key, static_cast<double>(least), static_cast<double>(most));
    if (!value) return std::nullopt;
    if (*value != std::floor(*value))
      fail(ErrorKind::kUsage, "{}: {} = {}: expected a whole number", where_, full(key), *value);
    return static_cast<int64_t>(*value);
  }
  std::optional<bool> flag(const char* key) {
    const toml::node* node = find(key);
    if (!node) return std::nullopt;
    if (const auto value = node->value_exact<bool>()) return value;
    wrong(key, "true or false");
  }
  const toml::node* any(const char* key) { return find(key); }
  std::vector<std::string> texts(const char* key) {
    std::vector<std::string> out;
    const toml::node* node = find(key);
    if (!node) return out;
    if (const auto one = node->value_exact<std::string>()) return {*one};
    const toml::array* array = node->as_array();
    if (!array) wrong(key, "a list of texts");
    for (const toml::node& item : *array) {
      const auto value = item.value_exact<std::string>();
      if (!value) wrong(key, "a list of texts");
      out.push_back(*value);
    }
    return out;
  }
  std::string full(const char* key) const { return name_.empty() ? key : name_ + "." + key; }
  void finish() const {
    if (!table_) return;
    for (const auto& [key, _] : *table_) {
      const std::string name{key.str()};
      if (std::find(asked_.begin(), asked_.end(), name) != asked_.end()) continue;
      fail(ErrorKind::kUsage, "{}: unknown key {}; nearest: {}", where_, full(name.c_str()),
           fmt::join(nearest_names(name, asked_), ", "));
    }
  }
  const std::string& where() const { return where_; }

 private:
  const toml::node* find(const char* key) {
    if (std::find(asked_.begin(), asked_.end(), key) == asked_.end()) asked_.emplace_back(key);
    return table_ ? table_->get(key) : nullptr;
  }
  [[noreturn]] void wrong(const char* key, const char* expected) const {
    std::ostringstream found;
    if (const toml::node* node = table_->get(key)) node->visit([&](const auto& n) { found << n; });
    fail(ErrorKind::kUsage, "{}: {}: expected {}, found {}", where_, full(key), expected, found.str());
  }
  const toml::table* table_;
  std::string name_, where_;
  std::vector<std::string> asked_;
};

void apply_setting(toml::table& root, const std::string& setting) {
  const size_t equals = setting.find('=');
  if (equals == std::string::npos || equals == 0)
    fail(ErrorKind::kUsage, "--set {}: expected key=value, such as run.precision=fp8", setting);
  std::string key = setting.substr(0, equals), value = setting.substr(equals + 1);
  std::vector<std::string> parts;
  if (key.starts_with("figures.")) {
    parts = {"figures", key.substr(8)};  // figure names have dots of their own
  } else {
    std::istringstream in(key);
    for (std::string part; std::getline(in, part, '.');) parts.push_back(part);
  }
  toml::table parsed;
  const auto try_parse = [&](const std::string& text) {
    try {
      parsed = toml::parse("v = " + text);
      return true;
    } catch (const toml::parse_error&) {
      return false;
    }
  };
  if (!try_parse(value) && !try_parse("\"" + value + "\""))
    fail(ErrorKind::kUsage, "--set {}: '{}' is no TOML value", setting, value);
  toml::table* table = &root;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const auto [it, fresh] = table->insert(parts[i], toml::table{});
    toml::table* next = it->second.as_table();
    if (!next) fail(ErrorKind::kUsage, "--set {}: {} is not a table", setting, parts[i]);
    table = next;
  }
  parsed.get("v")->visit([&](auto&& node) { table->insert_or_assign(parts.back(), std::move(node)); });
}

ModelSpec model_from_table(Section& s) {
  ModelSpec m;
  const auto need = [&](const char* key) {
    const auto value = s.count(key);
    if (!value) fail(ErrorKind::kUsage, "{}: {} is missing", s.where(), s.full(key));
    return *value;
  };
  m.layers = need("layers");
  m.hidden = need("hidden");
  m.heads = need("heads");
  m.vocab = need("vocab");
  m.ffn = need("ffn");
  m.kv_heads = s.count("kv_heads").value_or(m.heads);
  m.head_dim = s.count("head_dim").value_or(m.hidden / std::max<int64_t>(1, m.heads));
  m.max_positions = s.count("max_positions").value_or(1 << 20);
  m.tied_embeddings = s.flag("tied_embeddings").value_or(false);
  if (const auto act = s.text("activation")) {
    if (*act != "swiglu" && *act != "gelu")
      fail(ErrorKind::kUsage, "{}: model.activation = '{}': expected swiglu or gelu", s.where(), *act);
    m.activation = *act == "gelu" ? ActivationKind::kGelu : ActivationKind::kSwiGlu;
  }
  m.experts = s.count("experts", 0).value_or(0);
  m.dense_layers = s.count("dense_layers", 0).value_or(0);
  m.experts_per_token = s.count("experts_per_token", 0).value_or(0);
  m.expert_ffn = s.count("expert_ffn", 0).value_or(0);
  m.shared_expert_ffn = s.count("shared_expert_ffn", 0).value_or(0);
  s.finish();
  return m;
}

void read_model(const toml::node* node, const std::string& where, PlanRequest& r) {
  if (!node)
    fail(ErrorKind::kUsage,
         "{}: model is missing. Give a name (llama3-8b), a config.json, \"size:7e9\" or a [model] table",
         where);
  if (const toml::table* table = node->as_table()) {
    Section s(table, "model", where);
    r.run.model = model_from_table(s);
    r.model_name = "custom model";
    validate(r.run.model);
    return;
  }
  const auto name = node->value_exact<std::string>();
  if (!name) fail(ErrorKind::kUsage, "{}: model: expected a name in quotes or a [model] table", where);
  r.model_name = *name;
  if (name->starts_with("size:")) {
    double parameters = 0;
    const char* const last = name->data() + name->size();
    const auto [end, error] = std::from_chars(name->data() + 5, last, parameters);
    if (error != std::errc() || end != last)
      fail(ErrorKind::kUsage, "{}: model = '{}': expected size:<parameters>, such as size:7e9", where, *name);
    r.run.model = shape_for_parameters(parameters);
    return;
  }
  if (name->ends_with(".json") || std::filesystem::is_directory(*name)) {
    std::filesystem::path path(*name);
    if (path.is_relative()) {
      // Beside the plan file first, then where the program was started.
      const auto beside = std::filesystem::path(where).parent_path() / path;
      if (std::error_code ignored; std::filesystem::exists(beside, ignored)) path = beside;
    }
    if (std::filesystem::is_directory(path)) path /= "config.json";
    r.run.model =
        parse_hf_config(read_text(path.string(), "a Hugging Face config.json"), path.string()).model;
    r.model_name = path.string();
    return;
  }
  if (const CatalogModel* known = lookup_model(*name)) {
    r.run.model = known->spec;
    r.score_scale = known->score_scale;
    r.scan_elements = known->scan_elements;
    r.model_name = known->name;
    return;
  }
  std::vector<std::string> known = model_names();
  for (const std::string& preset : model_preset_names()) {
    if (preset == *name) {
      r.run.model = model_preset(*name);
      return;
    }
    known.push_back(preset);
  }
  fail(ErrorKind::kUsage, "{}: unknown model '{}'; nearest: {}. Or give a config.json", where, *name,
       fmt::join(nearest_names(*name, known), ", "));
}

template <typename Enum, size_t N>
Enum parse_choice(const std::optional<std::string>& text, const std::pair<const char*, Enum> (&choices)[N],
                  Enum fallback, const std::string& where, const char* key) {
  if (!text) return fallback;
  std::vector<std::string> known;
  for (const auto& [name, value] : choices) {
    if (*text == name) return value;
    known.emplace_back(name);
  }
  fail(ErrorKind::kUsage, "{}: {} = '{}': expected one of {}", where, key, *text, fmt::join(known, ", "));
}

void read_run(Section& s, PlanRequest& r) {
  RunSpec& run = r.run;
  run.batch.sequence_length =
      s.count("sequence_length")
          .value_or(std::min<int64_t>(run.model.max_positions > 0 ? run.model.max_positions : 4096, 8192));
  const auto sequences = s.count("global_batch");
  const auto tokens = s.number("global_batch_tokens", 1);
  if (sequences && tokens && static_cast<double>(*sequences * run.batch.sequence_length) != *tokens)
    fail(ErrorKind::kUsage,
         "{}: run.global_batch = {} (x {} tokens) contradicts run.global_batch_tokens = {:.0f}: give one of "
         "them",
         s.where(), *sequences, run.batch.sequence_length, *tokens);
  if (sequences) run.batch.global_batch = *sequences;
  else if (tokens)
    run.batch.global_batch =
        std::max<int64_t>(1, std::llround(*tokens / static_cast<double>(run.batch.sequence_length)));
  else run.batch.global_batch = 0;  // decided when the hardware is known
  if (const auto micro = s.count("micro_batch")) {
    run.batch.micro_batch = *micro;
    r.fixed_micro_batch = true;
  }
  if (const auto precision = s.text("precision")) {
    const auto value = parse_precision(*precision);
    if (!value)
      fail(ErrorKind::kUsage, "{}: run.precision = '{}': expected fp32, fp16, bf16, fp8 or fp4", s.where(),
           *precision);
    run.precision = *value;
  }
  if (const auto recompute = s.text("recompute")) {
    const auto value = parse_recompute(*recompute);
    if (!value)
      fail(ErrorKind::kUsage, "{}: run.recompute = '{}': expected none, selective or full", s.where(),
           *recompute);
    run.recompute = *value;
    r.fixed_recompute = true;
  }
  const std::pair<const char*, TrainingKind> kinds[] = {{"pretrain", TrainingKind::kPretrain},
                                                        {"finetune", TrainingKind::kFineTune},
                                                        {"lora", TrainingKind::kLora},
                                                        {"qlora", TrainingKind::kQlora}};
  run.training = parse_choice(s.text("training"), kinds, TrainingKind::kPretrain, s.where(), "run.training");
  const auto rank = s.count("lora_rank");
  if (rank && !trains_adapters(run))
    fail(ErrorKind::kUsage,
         "{}: run.lora_rank = {} contradicts run.training = {}: a rank needs lora or qlora", s.where(), *rank,
         to_string(run.training));
  run.lora_rank = rank.value_or(16);
  const std::pair<const char*, OptimizerKind> optimizers[] = {{"adamw", OptimizerKind::kAdamW},
                                                              {"muon", OptimizerKind::kMuon},
                                                              {"sgd", OptimizerKind::kSgd},
                                                              {"adafactor", OptimizerKind::kAdafactor}};
  run.optimizer.kind =
      parse_choice(s.text("optimizer"), optimizers, OptimizerKind::kAdamW, s.where(), "run.optimizer");
  if (run.optimizer.kind == OptimizerKind::kMuon || run.optimizer.kind == OptimizerKind::kSgd)
    run.optimizer.state_bytes = 4;
  if (run.optimizer.kind == OptimizerKind::kAdafactor) run.optimizer.state_bytes = 0.02;
  run.flash_attention = s.flag("flash_attention").value_or(true);
  r.engine = s.text("engine").value_or("");
  if (!r.engine.empty()) require_engine(r.engine);
  r.release = s.text("release").value_or("");
  if (!r.release.empty() && r.engine.empty())
    fail(ErrorKind::kUsage, "{}: run.release = '{}' without run.engine: say whose release it is", s.where(),
         r.release);
  if (!r.release.empty() && !r.release.starts_with(r.engine)) r.release = r.engine + " " + r.release;
  s.finish();
}

void read_layout(Section& s, PlanRequest& r, bool present) {
  LayoutSpec& l = r.run.layout;
  const auto tensor = s.count("tensor"), pipeline = s.count("pipeline"), context = s.count("context"),
             expert = s.count("expert"), data = s.count("data"), zero = s.count("zero_stage", 0, 3),
             chunks = s.count("virtual_stages"), zero_group = s.count("zero_group", 0);
  l.tensor = tensor.value_or(1);
  l.pipeline = pipeline.value_or(1);
  l.context = context.value_or(1);
  l.expert = expert.value_or(1);
  l.zero_stage = zero.value_or(1);
  r.fixed_zero = zero.has_value();
  l.zero_group = zero_group.value_or(0);
  l.virtual_stages = chunks.value_or(1);
  if (l.virtual_stages > 1) l.schedule = PipelineSchedule::kInterleaved;
  l.sequence_parallel = s.flag("sequence_parallel").value_or(l.tensor > 1);
  const int64_t rest = l.tensor * l.pipeline * l.context;
  l.data = data.value_or(std::max<int64_t>(1, r.hardware.accelerators / rest));
  r.fixed_layout = present && (tensor || pipeline || context || expert || data);
  s.finish();
  if (r.fixed_layout && l.world_size() != r.hardware.accelerators)
    fail(ErrorKind::kUsage,
         "{}: layout tensor {} x pipeline {} x context {} x data {} = {} workers contradicts hardware.on = "
         "'{}': {} "
         "accelerators",
         s.where(), l.tensor, l.pipeline, l.context, l.data, l.world_size(), r.on, r.hardware.accelerators);
}

void read_recovery(Section& s, PlanRequest& r) {
  const std::pair<const char*, RecoveryMode> modes[] = {{"storage", RecoveryMode::kStorage},
                                                        {"hot-spare", RecoveryMode::kHotSpare},
                                                        {"peer-memory", RecoveryMode::kPeerMemory},
                                                        {"elastic", RecoveryMode::kElastic}};
  const auto mode = s.text("recovery");
  r.recovery_given = mode.has_value();
  r.recovery.mode = parse_choice(mode, modes, RecoveryMode::kStorage, s.where(), "failures.recovery");
  r.recovery.detect_s = s.number("detect_s").value_or(-1);
  r.recovery.restart_s = s.number("restart_s").value_or(-1);
  r.recovery.load_s = s.number("load_s").value_or(-1);
  r.recovery.replace_s = s.number("replace_s").value_or(-1);
  r.checkpoint_s = s.number("checkpoint_s");
  r.checkpoint_interval_s = s.number("checkpoint_interval_s");
  s.finish();
}

}  // namespace

ModelSpec shape_for_parameters(double parameters) {
  if (!(parameters >= 1e6 && parameters <= 1e14))
    fail(ErrorKind::kUsage, "a model of {} parameters: expected 1e6 to 1e14", parameters);
  ModelSpec m;
  m.family = Family::kLlama;
  m.vocab = parameters < 1e9 ? 32000 : 128256;
  m.max_positions = 8192;
  m.head_dim = parameters < 3e8 ? 64 : 128;
  // Matrices, norms and both embeddings, as the parameter table sums them.
  const auto count = [](const ModelSpec& spec) {
    const double d = static_cast<double>(spec.hidden), dh = static_cast<double>(spec.head_dim);
    const double layer = d * dh * static_cast<double>(2 * spec.heads + 2 * spec.kv_heads) +
                         3 * d * static_cast<double>(spec.ffn) + 2 * d;
    return layer * static_cast<double>(spec.layers) + 2 * d * static_cast<double>(spec.vocab) + d;
  };
  ModelSpec best;
  double nearest = 1e300;
  for (int64_t heads = 1; heads <= 1024; ++heads) {
    m.heads = heads;
    m.hidden = heads * m.head_dim;
    const bool grouped = heads % 8 == 0 && parameters >= 6e9;
    m.kv_heads = grouped ? 8 : heads;
    m.ffn = (grouped ? m.hidden * 7 / 2 : m.hidden * 8 / 3) / 256 * 256 + 256;
    for (int64_t layers = std::max<int64_t>(2, m.hidden / 192); layers <= std::max<int64_t>(2, m.hidden / 96);
         ++layers) {
      m.layers = layers;
      const double off = std::abs(std::log(count(m) / parameters));
      if (off < nearest) {
        nearest = off;
        best = m;
      }
    }
  }
  validate(best);
  return best;
}

PlanRequest parse_plan(std::string_view text, const std::string& where,
                       const std::vector<std::string>& settings) {
  toml::table root;
  try {
    root = toml::parse(text, where);
  } catch (const toml::parse_error& e) {
    fail(ErrorKind::kUsage, "{} line {}, column {}: {}", where, e.source().begin.line,
         e.source().begin.column, e.description());
  }
  for (const std::string& setting : settings) apply_setting(root, setting);

  PlanRequest r;
  r.figures = FigureBook::built_in();
  Section top(&root, "", where);
  const auto section = [&](const char* name) {
    const toml::node* node = top.any(name);
    if (node && !node->is_table()) fail(ErrorKind::kUsage, "{}: {} must be a table: [{}]", where, name, name);
    return Section(node ? node->as_table() : nullptr, name, where);
  };
  r.name = top.text("name").value_or("");
  read_model(top.any("model"), where, r);
  if (r.name.empty()) r.name = r.model_name;
  const auto tokens = top.number("tokens", 1);
  r.unique_tokens = top.number("unique_tokens", 1).value_or(0);

  Section hardware = section("hardware");
  r.on = hardware.text("on").value_or("");
  const auto per_node = hardware.count("per_node");
  const auto between = hardware.number("between_GBps");
  const auto memory = hardware.number("memory_GB");
  const auto power = hardware.number("power_w");
  r.power_cap_w = hardware.number("power_cap_w", 1).value_or(0);
  r.workstation = hardware.flag("workstation").value_or(false);
  hardware.finish();
  if (r.on.empty())
    fail(ErrorKind::kUsage, "{}: no hardware: give --on h100:1024, or hardware.on in the file", where);
  r.hardware = parse_hardware(r.on);
  if (per_node || between) {
    const CatalogAccelerator& a = find_accelerator(std::string_view(r.on).substr(0, r.on.find(':')));
    r.hardware = make_hardware(a, r.hardware.accelerators, per_node.value_or(0),
                               between ? gigabytes_per_second(*between) : BytesPerSecond(0));
  }
  if (memory) r.hardware.accelerator.memory = gigabytes(*memory);
  if (power) r.hardware.accelerator.power = Watts(*power);
  validate(r.hardware);

  Section run = section("run");
  read_run(run, r);
  if (r.run.batch.global_batch == 0) {
    // 4 M tokens is what the published large runs use; small machines cannot be fed more than a few sequences
    // each.
    const double wanted = r.run.training == TrainingKind::kPretrain ? 4194304.0 : 131072.0;
    int64_t batch = std::max<int64_t>(1, static_cast<int64_t>(wanted) / r.run.batch.sequence_length);
    const int64_t n = r.hardware.accelerators;
    batch = n <= batch ? batch / n * n : batch;
    r.run.batch.global_batch = std::max<int64_t>(1, batch);
    r.notes.push_back(fmt::format("global batch {} sequences ({:.3g} M tokens): not given",
                                  r.run.batch.global_batch, static_cast<double>(r.run.batch.tokens()) / 1e6));
  }
  if (const BatchSpec& b = r.run.batch; r.fixed_micro_batch && b.micro_batch > b.global_batch)
    fail(ErrorKind::kUsage, "{}: run.micro_batch = {} contradicts run.global_batch = {}: it is a part of it",
         r.name, b.micro_batch, b.global_batch);
  const bool has_layout = top.any("layout") != nullptr;
  Section layout = section("layout");
  read_layout(layout, r, has_layout);

  if (tokens) {
    r.tokens = *tokens;
  } else if (r.run.training == TrainingKind::kPretrain) {
    r.tokens = 20.0 * static_cast<double>(active_parameter_count(r.run.model));
    r.notes.push_back("tokens: 20 per active parameter, not given");
  } else {
    fail(ErrorKind::kUsage, "{}: tokens is missing: fine-tuning has no natural length", where);
  }

  Section site = section("site");
  r.region = site.text("region").value_or("us");
  grid_region(r.region);
  r.pue = site.number("pue", 1, 10);
  r.rack_units = site.number("node_units", 1).value_or(8);
  site.finish();

  Section money = section("money");
  if (const auto path = money.text("path")) r.path = parse_path(*path);
  r.utilisation = money.number("utilisation").value_or(0.7);
  if (!(r.utilisation > 0 && r.utilisation <= 1))
    fail(ErrorKind::kUsage, "{}: money.utilisation = {}: expected more than 0 and at most 1", where,
         r.utilisation);
  r.price = money.number("price_per_hour");
  r.cloud = money.text("cloud").value_or("");
  r.price_files = money.texts("prices");
  r.data_in_gb = money.number("data_in_gb");
  r.data_out_gb = money.number("data_out_gb");
  r.storage_tb = money.number("storage_tb");
  money.finish();
  if (r.price && !r.price_files.empty())
    fail(ErrorKind::kUsage,
         "{}: money.price_per_hour contradicts money.prices: give the price or the catalog", where);

  Section failures = section("failures");
  read_recovery(failures, r);
  Section limits = section("constraints");
  r.constraints.deadline_days = limits.number("deadline_days");
  r.constraints.budget_usd = limits.number("budget_usd");
  r.constraints.power_mw = limits.number("power_mw");
  limits.finish();
  if (const toml::node* node = top.any("figures")) {
    const toml::table* table = node->as_table();
    if (!table) fail(ErrorKind::kUsage, "{}: figures must be a table: [figures]", where);
    for (const auto& [key, value] : *table) {
      const auto number = value.is_number() ? value.value<double>() : std::nullopt;
      if (!number) fail(ErrorKind::kUsage, "{}: figures.\"{}\": expected a number", where, key.str());
      r.figures.set(key.str(), *number);
    }
  }
  top.finish();
  return r;
}

PlanRequest read_plan_file(const std::string& path, const std::vector<std::string>& settings) {
  return parse_plan(read_text(path, "a plan file, as in recipes/plan/"), path, settings);
}

}  // namespace stoker::plan
