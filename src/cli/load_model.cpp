#include "cli/load_model.h"

#include "checkpoint/store.h"
#include "model/hf_weights.h"
#include "spec/hf_config.h"

namespace stoker::cli {
namespace {

// An empty model of this configuration. Small GPT-2 models often carry the published one's 50256 as begin and end of text:
// a token that the model has no row for is none.
LoadedModel prepare(const HfConfig& config, const std::string& source, Precision precision) {
  const auto known = [&](const std::optional<int64_t>& token) {
    return token && *token >= 0 && *token < config.model.vocab ? token : std::nullopt;
  };
  return {std::make_unique<nn::ParameterStore>(config.model, precision, false), "", source,
          known(config.bos_token), known(config.eos_token)};
}

LoadedModel from_hugging_face(const std::string& path, Precision precision, io::FileSystem& fs) {
  const std::string config = path + "/config.json";
  LoadedModel m = prepare(parse_hf_config(fs.open_read(config)->text(), config), path, precision);
  load_hf_weights(io::SafetensorsSet(fs, path), *m.store);
  if (fs.exists(path + "/tokenizer.json"))
    m.tokenizer_json = std::string(fs.open_read(path + "/tokenizer.json")->text());
  return m;
}

LoadedModel from_checkpoint(const std::string& path, Precision precision, io::FileSystem& fs) {
  const std::string source = checkpoint::resolve_checkpoint(fs, path);
  const auto saved = checkpoint::Checkpoint::open(fs, source);
  LoadedModel m = prepare(parse_hf_config(saved.state().model_config, source), source, precision);
  for (const nn::Parameter& p : m.store->parameters()) saved.load(p.row.name, p.weight.value);
  for (const std::string& name : saved.attachments())
    if (name == "tokenizer.json") m.tokenizer_json = saved.attachment(name);
  return m;
}

}  // namespace

LoadedModel load_model(const std::string& path, Precision precision, ops::Context& context) {
  io::FileSystem& fs = io::real_file_system();
  LoadedModel m = fs.exists(path + "/config.json") ? from_hugging_face(path, precision, fs)
                                                   : from_checkpoint(path, precision, fs);
  m.store->refresh(context);
  return m;
}

Precision precision_from(const std::string& name) {
  if (name == "bf16") return Precision::kBf16;
  if (name == "fp32") return Precision::kFp32;
  fail(ErrorKind::kUsage, "--precision is \"{}\": expected bf16 or fp32", name);
}

}  // namespace stoker::cli
