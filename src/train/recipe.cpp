#include "train/recipe.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include "base/checked.h"
#include "base/edit_distance.h"
#include "spec/hf_config.h"
#include "spec/presets.h"
#include "spec/tensor_share.h"

namespace stoker::train {
namespace {

// Reads keys and remembers which exist, so that the rest can be refused.
class Reader {
 public:
  Reader(const toml::table& table, std::string file) : table_(table), file_(std::move(file)) {}

  bool has(const std::string& key) {
    known_.insert(key);
    return static_cast<bool>(table_.at_path(key));
  }
  void text(const std::string& key, std::string& out) {
    if (!has(key)) return;
    const auto v = table_.at_path(key).value_exact<std::string>();
    if (!v) wrong(key, "a string");
    out = *v;
  }
  void number(const std::string& key, double& out, double low, double high) {
    if (!has(key)) return;
    const auto node = table_.at_path(key);
    if (!node.is_number()) wrong(key, "a number");
    out = *node.value<double>();
    if (!(out >= low && out <= high)) wrong(key, fmt::format("a number from {} to {}", low, high));
  }
  void number(const std::string& key, float& out, double low, double high) {
    double v = static_cast<double>(out);
    number(key, v, low, high);
    out = static_cast<float>(v);
  }
  template <typename Int>
  void whole(const std::string& key, Int& out, int64_t low, int64_t high) {
    if (!has(key)) return;
    const auto v = table_.at_path(key).value_exact<int64_t>();
    if (!v || *v < low || *v > high) wrong(key, fmt::format("a whole number from {} to {}", low, high));
    out = static_cast<Int>(*v);
  }
  void flag(const std::string& key, bool& out) {
    if (!has(key)) return;
    const auto v = table_.at_path(key).value_exact<bool>();
    if (!v) wrong(key, "true or false");
    out = *v;
  }
  template <typename T>
  void choice(const std::string& key, T& out, const std::vector<std::pair<std::string, T>>& choices) {
    if (!has(key)) return;
    const auto v = table_.at_path(key).value_exact<std::string>();
    std::string names;
    for (const auto& [name, value] : choices) {
      if (v && *v == name) {
        out = value;
        return;
      }
      names += (names.empty() ? "\"" : ", \"") + name + "\"";
    }
    wrong(key, "one of " + names);
  }
  // The tables of an array of tables; empty when there is none.
  std::vector<const toml::table*> tables(const std::string& key) {
    std::vector<const toml::table*> out;
    if (!has(key)) return out;
    const auto* list = table_.at_path(key).as_array();
    if (!list) wrong(key, "tables, each headed [[" + key + "]]");
    for (const auto& node : *list) {
      if (!node.is_table()) wrong(key, "tables, each headed [[" + key + "]]");
      out.push_back(node.as_table());
    }
    return out;
  }
  const std::string& file() const { return file_; }
  void refuse_unknown() const { refuse_unknown(table_, ""); }
  [[noreturn]] void wrong(const std::string& key, const std::string& expected) const {
    std::ostringstream found;
    if (const auto node = table_.at_path(key)) node.visit([&](const auto& n) { found << n; });
    fail(ErrorKind::kUsage, "{}: {} is {}: expected {}", file_, key, found.str(), expected);
  }

 private:
  void refuse_unknown(const toml::table& table, const std::string& prefix) const {
    for (const auto& [k, node] : table) {
      const std::string key = prefix + std::string(k.str());
      if (node.is_table()) {
        refuse_unknown(*node.as_table(), key + ".");
        continue;
      }
      if (known_.contains(key)) continue;
      fail(ErrorKind::kUsage, "{}: unknown key {}. Did you mean {}? docs/recipe.md lists all keys.", file_,
           key, nearest_name(key, known_));
    }
  }
  const toml::table& table_;
  std::string file_;
  std::set<std::string> known_;
};

toml::table parse_toml(const std::string& text, const std::string& name) {
  try {
    return toml::parse(text, name);
  } catch (const toml::parse_error& e) {
    fail(ErrorKind::kUsage, "{}:{}:{}: not valid TOML: {}", name, e.source().begin.line,
         e.source().begin.column, e.description());
  }
}

void apply_override(toml::table& table, const std::string& override_text) {
  const size_t equals = override_text.find('=');
  if (equals == std::string::npos || equals == 0)
    fail(ErrorKind::kUsage, "--set \"{}\": expected key=value, for example optimizer.learning_rate=3e-4",
         override_text);
  try {
    static_cast<void>(nlohmann::json(override_text).dump());
  } catch (const nlohmann::json::exception&) {
    fail(ErrorKind::kUsage, "--set {}...: expected UTF-8 text, found bytes that are not",
         override_text.substr(0, equals));
  }
  const std::string key = override_text.substr(0, equals), value = override_text.substr(equals + 1);
  toml::table parsed;
  try {
    parsed = toml::parse("v = " + value);
  } catch (const toml::parse_error&) {
    parsed.insert_or_assign("v", value);  // a bare word
  }
  toml::table* at = &table;
  size_t begin = 0;
  for (size_t dot; (dot = key.find('.', begin)) != std::string::npos; begin = dot + 1) {
    const std::string part = key.substr(begin, dot - begin);
    if (!at->contains(part)) at->insert(part, toml::table{});
    at = (*at)[part].as_table();
    if (!at) fail(ErrorKind::kUsage, "--set {}: {} is a value, not a table", override_text, part);
  }
  parsed["v"].visit([&](const auto& node) { at->insert_or_assign(key.substr(begin), node); });
}

void read_model(Reader& r, Recipe& recipe, const std::string& name, io::FileSystem& fs) {
  ModelSpec& m = recipe.model;
  std::string preset, config;
  r.text("model.preset", preset);
  r.text("model.config", config);
  r.text("model.init_from", recipe.init_from);
  if (!preset.empty() + !config.empty() + !recipe.init_from.empty() > 1)
    fail(ErrorKind::kUsage,
         "{}: model.preset, model.config and model.init_from each name a whole model: give one", name);
  if (!preset.empty()) m = model_preset(preset);
  if (!recipe.init_from.empty()) config = recipe.init_from + "/config.json";
  if (!config.empty()) {
    const auto file = fs.open_read(config);
    m = parse_hf_config(file->text(), config).model;
  }
  r.choice<Family>("model.family", m.family,
                   {{"gpt2", Family::kGpt2},
                    {"llama", Family::kLlama},
                    {"mistral", Family::kMistral},
                    {"qwen2", Family::kQwen2},
                    {"qwen3", Family::kQwen3}});
  if (m.family == Family::kGpt2) {
    m.norm = NormKind::kLayerNorm, m.activation = ActivationKind::kGelu, m.position = PositionKind::kLearned;
    m.linear_bias = m.tied_embeddings = true;
  }
  if (m.family == Family::kQwen2) m.qkv_bias = true;
  if (m.family == Family::kQwen3) m.qk_norm = true;
  constexpr int64_t kBig = 1 << 24;
  r.whole("model.layers", m.layers, 1, 10000);
  r.whole("model.hidden", m.hidden, 1, kBig);
  r.whole("model.heads", m.heads, 1, kBig);
  r.whole("model.ffn", m.ffn, 1, kBig);
  r.whole("model.vocab", m.vocab, 1, kBig);
  r.whole("model.max_positions", m.max_positions, 1, kBig);
  if (!r.has("model.kv_heads") && !m.kv_heads) m.kv_heads = m.heads;
  r.whole("model.kv_heads", m.kv_heads, 1, kBig);
  if (!m.head_dim && m.heads) {
    if (!r.has("model.head_dim") && m.hidden % m.heads)
      fail(ErrorKind::kUsage,
           "{}: model.hidden ({}) is not a multiple of model.heads ({}): change one, or give model.head_dim",
           name, m.hidden, m.heads);
    m.head_dim = m.hidden / m.heads;
  }
  r.whole("model.head_dim", m.head_dim, 1, kBig);
  r.flag("model.tied_embeddings", m.tied_embeddings);
  r.flag("model.qk_norm", m.qk_norm);
  r.number("model.norm_eps", m.norm_eps, 1e-12, 1);
  r.number("model.rope_theta", m.rope_theta, 1, 1e12);
  r.number("model.init_std", recipe.init_std, 0, 10);
  if (!m.max_positions) m.max_positions = recipe.sequence_length;
}

void read_train(Reader& r, Recipe& o) {
  r.whole("train.steps", o.steps, 1, int64_t{1} << 40);
  r.number("train.minutes", o.minutes, 0.01, 1e6);
  r.whole("train.global_batch", o.global_batch, 1, 1 << 24);
  o.micro_batch = std::min<int64_t>(o.global_batch, o.micro_batch);
  r.whole("train.micro_batch", o.micro_batch, 1, 1 << 20);
  r.whole("train.virtual_ranks", o.virtual_ranks, 1, 1 << 16);
  r.choice<Precision>("train.precision", o.precision,
                      {{"fp32", Precision::kFp32}, {"bf16", Precision::kBf16}});
  r.choice<Recompute>(
      "train.recompute", o.recompute,
      {{"none", Recompute::kNone}, {"selective", Recompute::kSelective}, {"full", Recompute::kFull}});
  r.whole("train.seed", o.seed, 0, std::numeric_limits<int64_t>::max());
  r.whole("train.threads", o.threads, 0, 4096);
  r.text("train.kernels", o.kernels);
}

void read_layout(Reader& r, LayoutSpec& l) {
  r.whole("layout.pipeline", l.pipeline, 1, 1 << 16);
  r.whole("layout.tensor", l.tensor, 1, 1 << 16);
  r.flag("layout.sequence_parallel", l.sequence_parallel);
  r.whole("layout.context", l.context, 1, 1 << 16);
  r.whole("layout.virtual_stages", l.virtual_stages, 1, 1 << 16);
  r.choice<PipelineSchedule>("layout.schedule", l.schedule,
                             {{"1f1b", PipelineSchedule::kOneForwardOneBackward},
                              {"interleaved", PipelineSchedule::kInterleaved},
                              {"zero-bubble", PipelineSchedule::kZeroBubble},
                              {"gpipe", PipelineSchedule::kAllForwardAllBackward}});
  r.whole("layout.zero_stage", l.zero_stage, 0, 3);
}

void read_optimizer(Reader& r, Recipe& o) {
  r.choice<OptimizerKind>(
      "optimizer.name", o.optimizer.kind,
      {{"adamw", OptimizerKind::kAdamW}, {"muon", OptimizerKind::kMuon}, {"sgd", OptimizerKind::kSgd}});
  r.number("optimizer.learning_rate", o.schedule.peak, 0, 100);
  r.number("optimizer.min_ratio", o.schedule.min_ratio, 0, 1);
  r.choice<optim::ScheduleKind>("optimizer.schedule", o.schedule.kind,
                                {{"constant", optim::ScheduleKind::kConstant},
                                 {"cosine", optim::ScheduleKind::kCosine},
                                 {"linear", optim::ScheduleKind::kLinear},
                                 {"wsd", optim::ScheduleKind::kWsd}});
  r.number("optimizer.warmup_ratio", o.warmup_ratio, 0, 1);
  r.number("optimizer.decay_ratio", o.decay_ratio, 0, 1);
  r.number("optimizer.beta1", o.optimizer.beta1, 0, 0.9999);
  r.number("optimizer.beta2", o.optimizer.beta2, 0, 0.999999);
  r.number("optimizer.eps", o.optimizer.eps, 0, 1);
  r.number("optimizer.weight_decay", o.optimizer.weight_decay, 0, 10);
  r.number("optimizer.momentum", o.optimizer.momentum, 0, 0.9999);
  r.number("optimizer.clip_norm", o.clip_norm, 0, 1e9);
}

// [[data.source]]: the datasets of a mixture. data.path: the only one.
void read_sources(Reader& r, Recipe& o) {
  std::string path;
  r.text("data.path", path);
  const auto sources = r.tables("data.source");
  if (sources.empty()) {
    data::FeedSource only;
    only.path = path;
    only.split = o.train_split;
    r.text("data.plan", only.plan);
    if (!path.empty()) o.data.sources.push_back(std::move(only));
    return;
  }
  if (!path.empty())
    fail(ErrorKind::kUsage, "{}: data.path and [[data.source]] both say what to train on: give one",
         r.file());
  for (const toml::table* table : sources) {
    Reader s(*table, fmt::format("{}: [[data.source]] {}", r.file(), o.data.sources.size() + 1));
    data::FeedSource source;
    source.name.clear();
    s.text("name", source.name);
    s.text("path", source.path);
    source.split = o.train_split;
    s.text("split", source.split);
    s.text("plan", source.plan);
    if (s.has("weight")) s.number("weight", source.weight.emplace(), 0, 1e6);
    s.number("max_epochs", source.max_epochs, 0, 1e9);
    s.choice<bool>("then", source.drop_at_max, {{"stop", false}, {"drop", true}});
    s.refuse_unknown();
    if (source.path.empty())
      fail(ErrorKind::kUsage, "{}: path is missing: a dataset's directory or URL", s.file());
    if (!data::is_source_name(source.name))
      fail(ErrorKind::kUsage, "{}: name is \"{}\": expected letters, digits, '_' and '-'", s.file(),
           source.name);
    o.data.sources.push_back(std::move(source));
  }
}

// [[data.phase]]: other weights from a step, or from a number of tokens, on.
void read_phases(Reader& r, Recipe& o) {
  for (const toml::table* table : r.tables("data.phase")) {
    Reader p(*table, fmt::format("{}: [[data.phase]] {}", r.file(), o.phases.size() + 1));
    DataPhase phase;
    p.whole("from_step", phase.from_step, 1, int64_t{1} << 40);
    p.whole("from_tokens", phase.from_tokens, 1, int64_t{1} << 60);
    if ((phase.from_step > 0) == (phase.from_tokens > 0))
      fail(ErrorKind::kUsage, "{}: give one of from_step and from_tokens", p.file());
    const auto* weights = (*table)["weights"].as_table();
    if (!p.has("weights") || !weights || weights->empty())
      fail(ErrorKind::kUsage,
           "{}: weights: expected a table of source names and weights, such as {{web = 0.3}}", p.file());
    for (const auto& [name, node] : *weights)
      p.number(fmt::format("weights.{}", name.str()), phase.weights[std::string(name.str())], 0, 1e6);
    p.refuse_unknown();
    o.phases.push_back(std::move(phase));
  }
}

void read_data(Reader& r, Recipe& o) {
  r.text("data.train_split", o.train_split);
  r.text("data.eval_split", o.eval_split);
  r.text("data.eval_path", o.eval_path);
  r.whole("data.sequence_length", o.sequence_length, 2, 1 << 24);
  r.flag("data.document_masks", o.document_masks);
  r.choice<bool>("data.packing", o.data.best_fit, {{"windows", false}, {"best_fit", true}});
  r.whole("data.shuffle_rows", o.data.shuffle_rows, 0, int64_t{1} << 40);
  r.text("data.cache", o.data.cache_directory);
  double gigabytes = 10;
  r.number("data.cache_gb", gigabytes, 0.001, 1e9);
  o.data.cache_bytes = static_cast<uint64_t>(gigabytes * 1e9);
  read_sources(r, o);
  read_phases(r, o);
}

void read_rest(Reader& r, Recipe& o) {
  r.text("run.dir", o.run_dir);
  read_data(r, o);
  r.whole("eval.every", o.eval_every, 0, int64_t{1} << 40);
  r.whole("eval.windows", o.eval_windows, 1, int64_t{1} << 40);
  r.whole("checkpoint.every", o.checkpoint_every, 1, int64_t{1} << 40);
  r.whole("checkpoint.keep_last", o.keep_last, 1, 1 << 20);
  const std::vector<std::pair<std::string, Reaction>> reactions{
      {"skip", Reaction::kSkip}, {"stop", Reaction::kStop}, {"rollback", Reaction::kRollback}};
  r.choice("policy.on_nan", o.on_nan, reactions);
  r.choice("policy.on_spike", o.on_spike, reactions);
  r.number("policy.spike_sigma", o.spike_sigma, 0, 1e6);
  r.whole("policy.spike_window", o.spike_window, 8, 1 << 20);
  r.whole("policy.max_skips", o.max_skips, 1, 1 << 20);
}

// Workers that compute a layer together.
void validate_shared_layers(const Recipe& o, const std::string& name) {
  const LayoutSpec& l = o.layout;
  (void)tensor_share(o.model, {l.tensor, 0});
  if (l.tensor > 1 && o.optimizer.kind == OptimizerKind::kMuon)
    fail(ErrorKind::kUsage,
         "{}: layout.tensor is {} and optimizer.name is muon: Muon needs whole matrices. Use tensor 1 or "
         "adamw.",
         name, l.tensor);
  if (l.zero_stage > 0 && o.model.vocab % l.tensor)
    fail(ErrorKind::kUsage,
         "{}: model.vocab ({}) is not a multiple of layout.tensor ({}), which layout.zero_stage {} needs: "
         "raise "
         "model.vocab to {}",
         name, o.model.vocab, l.tensor, l.zero_stage, (o.model.vocab / l.tensor + 1) * l.tensor);
  if (o.sequence_length % (l.context > 1 ? 2 * l.context : 1))
    fail(ErrorKind::kUsage,
         "{}: data.sequence_length ({}) is not a multiple of 2 x layout.context ({}): a row is cut into two "
         "stretches a worker, so that the causal mask leaves all the same work",
         name, o.sequence_length, l.context);
  const int64_t tokens = o.micro_batch * o.sequence_length / l.context;
  if (l.sequence_parallel && tokens % l.tensor)
    fail(ErrorKind::kUsage,
         "{}: train.micro_batch x data.sequence_length / layout.context ({}) is not a multiple of "
         "layout.tensor "
         "({}): layout.sequence_parallel cuts the tokens of a micro-batch into equal parts",
         name, tokens, l.tensor);
}

void validate(const Recipe& o, const std::string& name) {
  if (o.data.sources.empty())
    fail(ErrorKind::kUsage,
         "{}: data.path is missing: the directory that `stoker data prepare` wrote (or [[data.source]] for a "
         "mixture)",
         name);
  if ((o.steps > 0) == (o.minutes > 0))
    fail(ErrorKind::kUsage, "{}: give one of train.steps and train.minutes", name);
  if (!o.model.layers)
    fail(ErrorKind::kUsage,
         "{}: no model: give model.preset, model.config, model.init_from, or layers, hidden, heads, ffn and "
         "vocab",
         name);
  stoker::validate(o.model);
  if (o.sequence_length > o.model.max_positions)
    fail(ErrorKind::kUsage, "{}: data.sequence_length is {}, above model.max_positions ({})", name,
         o.sequence_length, o.model.max_positions);
  if (o.global_batch % (o.micro_batch * o.virtual_ranks))
    fail(ErrorKind::kUsage,
         "{}: train.global_batch ({}) is not a multiple of train.micro_batch ({}) x train.virtual_ranks ({})",
         name, o.global_batch, o.micro_batch, o.virtual_ranks);
  stoker::validate(o.layout, o.model);
  validate_shared_layers(o, name);
  if (o.layout.pipeline > 1 && o.layout.schedule == PipelineSchedule::kZeroBubble &&
      o.recompute != Recompute::kNone)
    fail(ErrorKind::kUsage,
         "{}: layout.schedule is zero-bubble and train.recompute is {}: weights' gradients are made later, "
         "from "
         "tensors that recomputing would not keep. Use recompute none or schedule 1f1b.",
         name, to_string(o.recompute));
  if (o.layout.zero_stage > 0 && o.optimizer.kind == OptimizerKind::kMuon)
    fail(ErrorKind::kUsage,
         "{}: layout.zero_stage is {} and optimizer.name is muon: Muon needs whole matrices. Use zero_stage "
         "0 or "
         "adamw.",
         name, o.layout.zero_stage);
}

}  // namespace

Recipe parse_recipe(const std::string& text, const std::string& name,
                    const std::vector<std::string>& overrides, io::FileSystem& fs) {
  toml::table table = parse_toml(text, name);
  for (const std::string& o : overrides) {
    apply_override(table, o);
    // Length is given in one of two ways: the later one counts.
    toml::table* train = table["train"].as_table();
    if (train != nullptr && o.starts_with("train.steps=")) train->erase("minutes");
    if (train != nullptr && o.starts_with("train.minutes=")) train->erase("steps");
  }
  Reader r(table, name);
  Recipe recipe;
  read_rest(r, recipe);
  read_model(r, recipe, name, fs);
  read_train(r, recipe);
  read_layout(r, recipe.layout);
  read_optimizer(r, recipe);
  r.refuse_unknown();
  validate(recipe, name);
  return recipe;
}

Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides) {
  const auto file = io::real_file_system().open_read(path);
  return parse_recipe(std::string(file->text()), path, overrides);
}

std::string Recipe::identity() const {
  HfConfig config;
  config.model = model;
  const nlohmann::json j{{"model", nlohmann::json::parse(to_hf_config(config))},
                         {"init_from", init_from},
                         {"init_std", init_std},
                         {"seed", seed},
                         {"threads", threads},
                         {"train_split", train_split},
                         {"sequence_length", sequence_length},
                         {"document_masks", document_masks},
                         {"steps", steps},
                         {"global_batch", global_batch},
                         {"micro_batch", micro_batch},
                         {"virtual_ranks", virtual_ranks},
                         {"precision", to_string(precision)},
                         {"kernels", kernels},
                         {"optimizer", to_string(optimizer.kind)},
                         {"beta1", optimizer.beta1},
                         {"beta2", optimizer.beta2},
                         {"eps", optimizer.eps},
                         {"weight_decay", optimizer.weight_decay},
                         {"momentum", optimizer.momentum},
                         {"schedule", optim::to_string(schedule.kind)},
                         {"learning_rate", schedule.peak},
                         {"min_ratio", schedule.min_ratio},
                         {"warmup_ratio", warmup_ratio},
                         {"decay_ratio", decay_ratio},
                         {"clip_norm", clip_norm},
                         {"on_nan", static_cast<int>(on_nan)},
                         {"on_spike", static_cast<int>(on_spike)},
                         {"spike_sigma", spike_sigma},
                         {"spike_window", spike_window}};
  return j.dump();
}

data::FeedOptions feed_options(const Recipe& r) {
  data::FeedOptions o = r.data;
  o.sequence_length = r.sequence_length;
  o.seed = r.seed;
  o.mode = r.document_masks ? data::PackingMode::kDocumentMasks : data::PackingMode::kConcatenated;
  for (const DataPhase& phase : r.phases) {
    data::FeedPhase p;
    p.weights = phase.weights;
    p.first_sample =
        phase.from_step > 0
            ? checked_mul(static_cast<uint64_t>(phase.from_step), static_cast<uint64_t>(r.global_batch),
                          "data.phase from_step")
            : static_cast<uint64_t>((phase.from_tokens + r.sequence_length - 1) / r.sequence_length);
    o.phases.push_back(std::move(p));
  }
  std::sort(o.phases.begin(), o.phases.end(),
            [](const auto& a, const auto& b) { return a.first_sample < b.first_sample; });
  return o;
}

std::string eval_dataset(const Recipe& recipe, io::FileSystem& fs) {
  if (!recipe.eval_path.empty()) return recipe.eval_path;
  for (const auto& source : recipe.data.sources)
    if (data::Dataset::open(fs, source.path).manifest().find_split(recipe.eval_split)) return source.path;
  return "";
}

}  // namespace stoker::train
