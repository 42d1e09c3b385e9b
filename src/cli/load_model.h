// cli/load_model.h
// A model for scoring or sampling from whatever a user points at: a run directory, a checkpoint, or a Hugging Face directory.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "nn/parameter_store.h"

namespace stoker::cli {

struct LoadedModel {
  std::unique_ptr<nn::ParameterStore> store;    // no gradients
  std::string tokenizer_json;                   // empty: none beside the weights
  std::string source;                           // what was read
  std::optional<int64_t> bos_token, eos_token;  // as its configuration names them
};

LoadedModel load_model(const std::string& path, Precision precision, ops::Context& context);
Precision precision_from(const std::string& name);  // Usage: names --precision

}  // namespace stoker::cli
