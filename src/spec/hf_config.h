// spec/hf_config.h
// ModelSpec <-> the config.json of a Hugging Face model directory.
// Reads    architectures gpt2, llama, mistral, qwen2, qwen3 (causal language models), both generations of
//          rotary fields (rope_theta + rope_scaling; rope_parameters). A field that is absent has transformers'
//          default
// Writes   what transformers 4 and 5 load: rope_theta + rope_scaling, torch_dtype
// Errors   Data: not JSON, a field missing or of the wrong type. Usage: a feature that Stoker does not have;
//          the message names the field, its value and what is supported. Dropout is a warning only: Stoker
//          trains without
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/model_spec.h"

namespace stoker {

struct HfConfig {
  ModelSpec model;
  std::string dtype = "float32";  // float32, bfloat16, float16: how the weights are stored
  std::optional<int64_t> bos_token, eos_token, pad_token;
  std::vector<std::string> warnings;
};

// `where` names the text in errors (a path).
HfConfig parse_hf_config(std::string_view text, std::string_view where);

std::string to_hf_config(const HfConfig& config);             // config.json; ends with a newline
std::string to_hf_generation_config(const HfConfig& config);  // generation_config.json

}  // namespace stoker
