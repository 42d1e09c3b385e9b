#include "spec/hf_config.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace stoker {
namespace {

using Json = nlohmann::ordered_json;

// Typed access to one JSON object; every error names file, field and value.
class Fields {
 public:
  Fields(const Json& object, std::string_view where) : object_(object), where_(where) {}

  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  bool contains(const char* key) const { return object_.contains(key); }

  int64_t integer(const char* key) const { return as_integer(key, need(key, "a whole number")); }
  int64_t integer(const char* key, int64_t fallback) const {
    const Json* v = find(key);
    return v ? as_integer(key, *v) : fallback;
  }
  double number(const char* key) const { return as_number(key, need(key, "a number")); }
  double number(const char* key, double fallback) const {
    const Json* v = find(key);
    return v ? as_number(key, *v) : fallback;
  }
  bool boolean(const char* key, bool fallback) const {
    const Json* v = find(key);
    if (v && !v->is_boolean()) wrong(key, *v, "true or false");
    return v ? v->get<bool>() : fallback;
  }
  std::string text(const char* key, std::string fallback) const {
    const Json* v = find(key);
    if (v && !v->is_string()) wrong(key, *v, "a string");
    return v ? v->get<std::string>() : std::move(fallback);
  }
  // A token id; of a list (several end tokens) the first.
  std::optional<int64_t> token(const char* key) const {
    const Json* v = find(key);
    if (v && v->is_array()) v = v->empty() ? nullptr : &v->front();
    return v ? std::optional(as_integer(key, *v)) : std::nullopt;
  }

  const Json& need(const char* key, const char* expected) const {
    const Json* v = find(key);
    if (!v) fail(ErrorKind::kData, "{}: field '{}' is missing: expected {}", where_, key, expected);
    return *v;
  }
  [[noreturn]] void wrong(const char* key, const Json& value, const char* expected) const {
    fail(ErrorKind::kData, "{}: field '{}' is {}: expected {}", where_, key, shown(value), expected);
  }
  [[noreturn]] void unsupported(const char* key, const Json& value, std::string_view supported) const {
    fail(ErrorKind::kUsage, "{}: field '{}' is {}: not supported. Supported: {}", where_, key, shown(value),
         supported);
  }
  void only(const char* key, bool required) const {
    if (boolean(key, required) != required) unsupported(key, *find(key), required ? "true" : "false");
  }
  std::string_view where() const { return where_; }

 private:
  static std::string shown(const Json& value) {
    std::string s = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    return s.size() <= 80 ? s : s.substr(0, 77) + "...";
  }
  int64_t as_integer(const char* key, const Json& v) const {
    const bool fits = v.is_number_integer() &&
                      (!v.is_number_unsigned() || v.get<uint64_t>() <= uint64_t{0x7fffffffffffffff});
    if (!fits) wrong(key, v, "a whole number");
    return v.get<int64_t>();
  }
  double as_number(const char* key, const Json& v) const {
    if (!v.is_number()) wrong(key, v, "a number");
    return v.get<double>();
  }

  const Json& object_;
  std::string_view where_;
};

struct FamilyName {
  Family family;
  const char* architecture;
};
constexpr FamilyName kFamilies[] = {{Family::kGpt2, "GPT2LMHeadModel"},
                                    {Family::kLlama, "LlamaForCausalLM"},
                                    {Family::kMistral, "MistralForCausalLM"},
                                    {Family::kQwen2, "Qwen2ForCausalLM"},
                                    {Family::kQwen3, "Qwen3ForCausalLM"}};
constexpr const char* kSupportedTypes =
    "model_type gpt2, llama, mistral, qwen2 and qwen3 (dense causal language models)";

const char* architecture(Family family) {
  for (const FamilyName& f : kFamilies)
    if (f.family == family) return f.architecture;
  return "?";
}

Family parse_family(const Fields& f) {
  const std::string type = f.text("model_type", "");
  for (const FamilyName& known : kFamilies)
    if (type == to_string(known.family)) {
      const Json* list = f.find("architectures");
      if (list && list->is_array() && !list->empty() && list->front() != known.architecture &&
          !(known.family == Family::kGpt2 && list->front() == "GPT2Model"))
        f.unsupported("architectures", *list,
                      fmt::format("[\"{}\"] for model_type {}", known.architecture, type));
      return known.family;
    }
  if (type.empty())
    fail(ErrorKind::kData, "{}: field 'model_type' is missing: expected {}", f.where(), kSupportedTypes);
  f.unsupported("model_type", *f.find("model_type"), kSupportedTypes);
}

void parse_gpt2(const Fields& f, ModelSpec& s) {
  s.hidden = f.integer("n_embd");
  s.layers = f.integer("n_layer");
  s.heads = s.kv_heads = f.integer("n_head");
  s.vocab = f.integer("vocab_size");
  s.max_positions = f.integer("n_positions", f.integer("n_ctx", 1024));
  if (s.hidden > 0 && s.heads > 0 && s.hidden % s.heads)
    fail(ErrorKind::kData, "{}: field 'n_embd' is {}: expected a multiple of 'n_head' ({})", f.where(),
         s.hidden, s.heads);
  s.head_dim = s.heads > 0 ? s.hidden / s.heads : 0;
  s.ffn = f.integer("n_inner", s.hidden > 0 && s.hidden < (int64_t{1} << 40) ? 4 * s.hidden : 0);
  s.norm = NormKind::kLayerNorm;
  s.norm_eps = f.number("layer_norm_epsilon", 1e-5);
  s.activation = ActivationKind::kGelu;
  const std::string act = f.text("activation_function", "gelu_new");
  if (act != "gelu_new" && act != "gelu_pytorch_tanh")
    f.unsupported("activation_function", *f.find("activation_function"), "gelu_new, gelu_pytorch_tanh");
  s.position = PositionKind::kLearned;
  s.linear_bias = true;
  s.tied_embeddings = f.boolean("tie_word_embeddings", true);
  f.only("scale_attn_weights", true);
  f.only("scale_attn_by_inverse_layer_idx", false);
  f.only("add_cross_attention", false);
}

void parse_rope(const Fields& f, ModelSpec& s) {
  s.rope_theta = f.number("rope_theta", 10000);
  const char* key = f.find("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const Json* rope = f.find(key);
  if (!rope) return;
  if (!rope->is_object()) f.wrong(key, *rope, "an object");
  const std::string inner = fmt::format("{}: {}", f.where(), key);
  const Fields r(*rope, inner);
  s.rope_theta = r.number("rope_theta", s.rope_theta);
  const char* type_key = r.find("rope_type") ? "rope_type" : "type";
  const std::string type = r.text(type_key, "default");
  if (type == "linear") {
    s.rope_scaling.kind = RopeScalingKind::kLinear;
    s.rope_scaling.factor = r.number("factor");
  } else if (type == "llama3") {
    s.rope_scaling.kind = RopeScalingKind::kLlama3;
    s.rope_scaling.factor = r.number("factor");
    s.rope_scaling.low_freq_factor = r.number("low_freq_factor");
    s.rope_scaling.high_freq_factor = r.number("high_freq_factor");
    s.rope_scaling.original_max_positions = r.integer("original_max_position_embeddings");
  } else if (type != "default") {
    r.unsupported(type_key, *r.find(type_key), "default, linear, llama3");
  }
  for (const Fields& at : {f, r})
    if (at.number("partial_rotary_factor", 1) != 1)
      at.unsupported("partial_rotary_factor", *at.find("partial_rotary_factor"),
                     "1 (rotation of whole heads)");
  if (s.rope_scaling.kind != RopeScalingKind::kNone && !(s.rope_scaling.factor >= 1))
    r.wrong("factor", *r.find("factor"), "a number of at least 1");
  if (s.rope_scaling.kind == RopeScalingKind::kLlama3) {
    if (!(s.rope_scaling.low_freq_factor > 0 &&
          s.rope_scaling.high_freq_factor > s.rope_scaling.low_freq_factor))
      r.wrong("high_freq_factor", *r.find("high_freq_factor"),
              "a number above low_freq_factor, both above 0");
    if (s.rope_scaling.original_max_positions <= 0)
      r.wrong("original_max_position_embeddings", *r.find("original_max_position_embeddings"),
              "a number above 0");
  }
}

// One window for all layers: ModelSpec has no per-layer attention.
int64_t parse_window(const Fields& f, Family family, int64_t layers) {
  if (family == Family::kLlama) return 0;
  const bool on = family == Family::kMistral || f.boolean("use_sliding_window", false);
  // Mistral's default when the field is absent is 4096; null means none.
  const int64_t window = f.contains("sliding_window") ? f.integer("sliding_window", 0)
                                                      : (family == Family::kMistral || on ? 4096 : 0);
  if (!on || window == 0) return 0;
  if (window < 0) f.wrong("sliding_window", *f.find("sliding_window"), "a number above 0, or null");
  if (const Json* types = f.find("layer_types"); types && types->is_array()) {
    bool all_full = true, all_sliding = true;
    for (const Json& t : *types) {
      all_full &= t == "full_attention";
      all_sliding &= t == "sliding_attention";
    }
    if (!all_full && !all_sliding) f.unsupported("layer_types", *types, "the same attention in all layers");
    return all_full ? 0 : window;
  }
  if (family == Family::kMistral) return window;
  // Qwen: the first max_window_layers layers see everything.
  const int64_t full = f.integer("max_window_layers", 28);
  if (full >= layers) return 0;
  if (full > 0)
    f.unsupported("max_window_layers", *f.find("max_window_layers"), "the same attention in all layers");
  return window;
}

void parse_llama(const Fields& f, ModelSpec& s) {
  s.hidden = f.integer("hidden_size");
  s.layers = f.integer("num_hidden_layers");
  s.heads = f.integer("num_attention_heads");
  s.ffn = f.integer("intermediate_size");
  s.vocab = f.integer("vocab_size");
  const bool qwen = s.family == Family::kQwen2 || s.family == Family::kQwen3;
  // Absent and null differ: absent takes the family's default, null means "as many as heads".
  s.kv_heads = f.contains("num_key_value_heads") ? f.integer("num_key_value_heads", s.heads)
               : s.family == Family::kLlama      ? s.heads
               : s.family == Family::kMistral    ? 8
                                                 : 32;
  if (f.find("head_dim")) {
    s.head_dim = f.integer("head_dim");
  } else if (s.family == Family::kQwen3 && !f.contains("head_dim")) {
    s.head_dim = 128;
  } else {
    if (s.hidden > 0 && s.heads > 0 && s.hidden % s.heads)
      fail(ErrorKind::kData,
           "{}: field 'hidden_size' is {}: expected a multiple of 'num_attention_heads' ({}), or 'head_dim'",
           f.where(), s.hidden, s.heads);
    s.head_dim = s.heads > 0 ? s.hidden / s.heads : 0;
  }
  const int64_t positions = qwen ? 32768 : s.family == Family::kMistral ? 131072 : 2048;
  s.max_positions = f.integer("max_position_embeddings", positions);
  s.norm = NormKind::kRmsNorm;
  s.norm_eps = f.number("rms_norm_eps", 1e-6);
  s.activation = ActivationKind::kSwiGlu;
  const std::string act = f.text("hidden_act", "silu");
  if (act != "silu" && act != "swish") f.unsupported("hidden_act", *f.find("hidden_act"), "silu (SwiGLU)");
  s.position = PositionKind::kRope;
  parse_rope(f, s);
  s.tied_embeddings = f.boolean("tie_word_embeddings", false);
  s.qkv_bias = s.family == Family::kQwen2;
  s.qk_norm = s.family == Family::kQwen3;
  if (s.family != Family::kQwen2 && f.boolean("attention_bias", false))
    f.unsupported("attention_bias", *f.find("attention_bias"),
                  "false (biases of query, key and value only come with model_type qwen2, which has none on "
                  "the output)");
  f.only("mlp_bias", false);
  s.sliding_window = parse_window(f, s.family, s.layers);
}

void warn_dropout(const Fields& f, std::vector<std::string>& warnings) {
  for (const char* key : {"attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout"})
    if (const double p = f.number(key, 0); p != 0)
      warnings.push_back(
          fmt::format("{}: '{}' is {}: Stoker trains without dropout and ignores it", f.where(), key, p));
}

Json shared_fields(const HfConfig& c) {
  const ModelSpec& s = c.model;
  Json j;
  j["architectures"] = {architecture(s.family)};
  j["model_type"] = std::string(to_string(s.family));
  j["vocab_size"] = s.vocab;
  return j;
}

void require(bool ok, const ModelSpec& s, const char* field, const char* wanted) {
  if (!ok)
    fail(ErrorKind::kUsage,
         "model.{} does not fit model.family = {}: its config.json can only say {}. Change one of the two.",
         field, to_string(s.family), wanted);
}

void check_expressible(const ModelSpec& s) {
  validate(s);
  require(s.experts == 0, s, "experts", "0 (dense)");
  if (s.family == Family::kGpt2) {
    require(s.norm == NormKind::kLayerNorm, s, "norm", "layer norm");
    require(s.activation == ActivationKind::kGelu, s, "activation", "gelu");
    require(s.position == PositionKind::kLearned, s, "position", "learned positions");
    require(s.linear_bias, s, "linear_bias", "true");
    require(!s.qk_norm, s, "qk_norm", "false");
    require(s.kv_heads == s.heads, s, "kv_heads", "as many as heads");
    require(s.head_dim * s.heads == s.hidden, s, "head_dim", "hidden / heads");
    require(s.sliding_window == 0, s, "sliding_window", "0");
    return;
  }
  require(s.norm == NormKind::kRmsNorm, s, "norm", "RMS norm");
  require(s.activation == ActivationKind::kSwiGlu, s, "activation", "SwiGLU");
  require(s.position == PositionKind::kRope, s, "position", "rotary positions");
  require(!s.linear_bias, s, "linear_bias", "false");
  require(s.qkv_bias == (s.family == Family::kQwen2), s, "qkv_bias", "true for qwen2, false for the others");
  require(s.qk_norm == (s.family == Family::kQwen3), s, "qk_norm", "true for qwen3, false for the others");
  require(s.sliding_window == 0 || s.family != Family::kLlama, s, "sliding_window", "0");
}

template <typename J>
void put_tokens(J& j, const HfConfig& c) {
  const auto put = [&](const char* key, const std::optional<int64_t>& token) {
    j[key] = token ? Json(*token) : Json(nullptr);
  };
  put("bos_token_id", c.bos_token);
  put("eos_token_id", c.eos_token);
  if (c.pad_token) j["pad_token_id"] = *c.pad_token;
}

}  // namespace

HfConfig parse_hf_config(std::string_view text, std::string_view where) {
  const Json j = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (j.is_discarded()) fail(ErrorKind::kData, "{}: not valid JSON", where);
  if (!j.is_object()) fail(ErrorKind::kData, "{}: expected a JSON object", where);
  const Fields f(j, where);
  HfConfig c;
  c.model.family = parse_family(f);
  if (const Json* q = f.find("quantization_config"))
    f.unsupported("quantization_config", *q, "weights in float32, bfloat16 or float16");
  if (c.model.family == Family::kGpt2) parse_gpt2(f, c.model);
  else parse_llama(f, c.model);
  validate(c.model);
  const char* dtype_key = f.find("dtype") ? "dtype" : "torch_dtype";
  c.dtype = f.text(dtype_key, "float32");
  if (c.dtype != "float32" && c.dtype != "bfloat16" && c.dtype != "float16")
    f.unsupported(dtype_key, *f.find(dtype_key), "float32, bfloat16, float16");
  c.bos_token = f.token("bos_token_id");
  c.eos_token = f.token("eos_token_id");
  c.pad_token = f.token("pad_token_id");
  warn_dropout(f, c.warnings);
  return c;
}

std::string to_hf_config(const HfConfig& c) {
  const ModelSpec& s = c.model;
  check_expressible(s);
  Json j = shared_fields(c);
  if (s.family == Family::kGpt2) {
    j["n_positions"] = s.max_positions;
    j["n_embd"] = s.hidden;
    j["n_layer"] = s.layers;
    j["n_head"] = s.heads;
    j["n_inner"] = s.ffn;
    j["activation_function"] = "gelu_new";
    j["layer_norm_epsilon"] = s.norm_eps;
    for (const char* key : {"attn_pdrop", "embd_pdrop", "resid_pdrop"}) j[key] = 0.0;
  } else {
    j["hidden_size"] = s.hidden;
    j["intermediate_size"] = s.ffn;
    j["num_hidden_layers"] = s.layers;
    j["num_attention_heads"] = s.heads;
    j["num_key_value_heads"] = s.kv_heads;
    j["head_dim"] = s.head_dim;
    j["max_position_embeddings"] = s.max_positions;
    j["hidden_act"] = "silu";
    j["rms_norm_eps"] = s.norm_eps;
    j["rope_theta"] = s.rope_theta;
    if (s.rope_scaling.kind == RopeScalingKind::kLinear) {
      j["rope_scaling"] = {{"rope_type", "linear"}, {"factor", s.rope_scaling.factor}};
    } else if (s.rope_scaling.kind == RopeScalingKind::kLlama3) {
      j["rope_scaling"] = {{"rope_type", "llama3"},
                           {"factor", s.rope_scaling.factor},
                           {"low_freq_factor", s.rope_scaling.low_freq_factor},
                           {"high_freq_factor", s.rope_scaling.high_freq_factor},
                           {"original_max_position_embeddings", s.rope_scaling.original_max_positions}};
    } else {
      j["rope_scaling"] = nullptr;
    }
    j["attention_dropout"] = 0.0;
    if (s.family == Family::kLlama) j["attention_bias"] = j["mlp_bias"] = false;
    if (s.family == Family::kQwen3) j["attention_bias"] = false;
    if (s.family == Family::kMistral)
      j["sliding_window"] = s.sliding_window ? Json(s.sliding_window) : Json(nullptr);
    if (s.family == Family::kQwen2 || s.family == Family::kQwen3) {
      j["use_sliding_window"] = s.sliding_window != 0;
      j["sliding_window"] = s.sliding_window ? Json(s.sliding_window) : Json(nullptr);
      j["max_window_layers"] = s.sliding_window ? 0 : s.layers;
    }
  }
  j["tie_word_embeddings"] = s.tied_embeddings;
  put_tokens(j, c);
  j["torch_dtype"] = c.dtype;
  j["use_cache"] = true;
  return j.dump(2) + "\n";
}

std::string to_hf_generation_config(const HfConfig& c) {
  Json j;
  j["_from_model_config"] = true;
  if (c.bos_token) j["bos_token_id"] = *c.bos_token;
  if (c.eos_token) j["eos_token_id"] = *c.eos_token;
  if (c.pad_token) j["pad_token_id"] = *c.pad_token;
  return j.dump(2) + "\n";
}

}  // namespace stoker
