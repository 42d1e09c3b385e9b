#include "spec/model_spec.h"

#include "base/error.h"

namespace stoker {

std::string_view to_string(Family family) {
  switch (family) {
    case Family::kGpt2:
      return "gpt2";
    case Family::kLlama:
      return "llama";
    case Family::kMistral:
      return "mistral";
    case Family::kQwen2:
      return "qwen2";
    case Family::kQwen3:
      return "qwen3";
  }
  return "?";
}

void validate(const ModelSpec& s) {
  auto positive = [](const char* field, int64_t value) {
    if (value <= 0 || value > (int64_t{1} << 31))
      fail(ErrorKind::kUsage, "model.{} is {}: expected a whole number from 1 to 2^31", field, value);
  };
  positive("layers", s.layers);
  positive("hidden", s.hidden);
  positive("heads", s.heads);
  positive("kv_heads", s.kv_heads);
  positive("head_dim", s.head_dim);
  positive("ffn", s.ffn);
  positive("vocab", s.vocab);
  positive("max_positions", s.max_positions);
  if (s.heads % s.kv_heads)
    fail(ErrorKind::kUsage,
         "model.heads ({}) is not a multiple of model.kv_heads ({}): each key head serves a whole group of "
         "query heads",
         s.heads, s.kv_heads);
  if (s.position == PositionKind::kRope && s.head_dim % 2)
    fail(ErrorKind::kUsage, "model.head_dim is {}: rotary positions need an even number", s.head_dim);
  if (!(s.norm_eps > 0))
    fail(ErrorKind::kUsage, "model.norm_eps is {}: expected a number above 0", s.norm_eps);
  if (s.position == PositionKind::kRope && !(s.rope_theta > 0))
    fail(ErrorKind::kUsage, "model.rope_theta is {}: expected a number above 0", s.rope_theta);
  if (s.experts < 0 || (s.experts > 0 && (s.experts_per_token < 1 || s.experts_per_token > s.experts)))
    fail(ErrorKind::kUsage, "model.experts_per_token is {}: expected 1 to model.experts ({})",
         s.experts_per_token, s.experts);
  if (s.dense_layers < 0 || s.dense_layers > s.layers || (s.dense_layers > 0 && !s.experts))
    fail(ErrorKind::kUsage,
         "model.dense_layers is {}: expected 0 to model.layers ({}), and 0 where model.experts is 0",
         s.dense_layers, s.layers);
}

double train_flops_per_token(const ModelSpec& s, int64_t sequence_length) {
  const double d = static_cast<double>(s.hidden), q = static_cast<double>(s.heads * s.head_dim),
               kv = static_cast<double>(s.kv_heads * s.head_dim);
  const double mats = s.activation == ActivationKind::kSwiGlu ? 3 : 2;
  const double l = static_cast<double>(s.layers);
  const double dense = s.experts ? static_cast<double>(s.dense_layers) : l;
  const double routed =
      mats * d * static_cast<double>(s.expert_ffn * s.experts_per_token + s.shared_expert_ffn) +
      d * static_cast<double>(s.experts);
  const double layers =
      l * (d * (q + 2 * kv) + q * d) + dense * mats * d * static_cast<double>(s.ffn) + (l - dense) * routed;
  return 6 * (layers + d * static_cast<double>(s.vocab)) + 12 * l * q * static_cast<double>(sequence_length);
}

}  // namespace stoker
