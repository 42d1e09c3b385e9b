#include "cli/hf_exchange.h"

#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "base/stop.h"
#include "checkpoint/background_writer.h"
#include "io/atomic_write.h"
#include "model/hf_weights.h"
#include "spec/hf_config.h"

namespace stoker::cli {
namespace {

constexpr const char* kCarried[] = {"tokenizer.json",
                                    "tokenizer_config.json",
                                    "special_tokens_map.json",
                                    "generation_config.json",
                                    "vocab.json",
                                    "merges.txt",
                                    "added_tokens.json",
                                    "chat_template.jinja"};

void stop_if_asked(const char* what) {
  if (stop_requested()) fail(ErrorKind::kCancelled, "{} was stopped; nothing was left behind", what);
}

Dtype dtype_of_name(const std::string& name) {
  if (name == "float32") return Dtype::kF32;
  if (name == "bfloat16") return Dtype::kBf16;
  if (name == "float16") return Dtype::kF16;
  fail(ErrorKind::kUsage, "--dtype is \"{}\": expected float32, bfloat16 or float16", name);
}

// How the files store their weights when they agree; config.json may say otherwise or nothing.
std::string stored_dtype(const io::SafetensorsSet& files, const std::string& from_config) {
  std::string seen;
  for (const auto& [name, at] : files.tensors()) {
    if (seen.empty()) seen = at.tensor->dtype;
    else if (seen != at.tensor->dtype) return from_config;
  }
  return seen == "F32" ? "float32" : seen == "BF16" ? "bfloat16" : seen == "F16" ? "float16" : from_config;
}

void write_synced(io::FileSystem& fs, const std::string& path, std::string_view contents) {
  const auto file = fs.create(path);
  file->append(contents);
  file->sync();
  file->close();
}

// For a tokenizer.json that came without one: which class reads it and what its special tokens are called.
std::string tokenizer_config(const std::string& tokenizer_json, const HfConfig& config) {
  nlohmann::ordered_json out{{"tokenizer_class", "PreTrainedTokenizerFast"},
                             {"model_max_length", config.model.max_positions},
                             {"clean_up_tokenization_spaces", false}};
  const auto j = nlohmann::json::parse(tokenizer_json, nullptr, false);
  if (j.is_object() && j.contains("added_tokens") && j["added_tokens"].is_array())
    for (const auto& token : j["added_tokens"]) {
      if (!token.is_object() || !token.contains("id") || !token.contains("content")) continue;
      if (config.bos_token && token["id"] == *config.bos_token) out["bos_token"] = token["content"];
      if (config.eos_token && token["id"] == *config.eos_token) out["eos_token"] = token["content"];
      if (config.pad_token && token["id"] == *config.pad_token) out["pad_token"] = token["content"];
    }
  return out.dump(2) + "\n";
}

// What is not weights: from the checkpoint where it has it, made from the configuration where not.
std::vector<checkpoint::Attachment> companion_files(const checkpoint::Checkpoint& saved,
                                                    const HfConfig& config) {
  std::vector<checkpoint::Attachment> out{{"config.json", to_hf_config(config)}};
  bool generation = false, tokenizer_settings = false;
  std::string tokenizer;
  for (const std::string& name : saved.attachments()) {
    if (name == "config.json") continue;
    out.push_back({name, saved.attachment(name)});
    generation |= name == "generation_config.json";
    tokenizer_settings |= name == "tokenizer_config.json";
    if (name == "tokenizer.json") tokenizer = out.back().contents;
  }
  if (!generation) out.push_back({"generation_config.json", to_hf_generation_config(config)});
  if (!tokenizer.empty() && !tokenizer_settings)
    out.push_back({"tokenizer_config.json", tokenizer_config(tokenizer, config)});
  return out;
}

class TensorExporter {
 public:
  TensorExporter(const checkpoint::Checkpoint& saved, const ModelSpec& spec, Dtype dtype)
      : saved_(saved), rows_(parameter_table(spec)), dtype_(dtype) {
    for (const ParameterRow& row : rows_) {
      const checkpoint::StoredTensor& t = saved.tensor(row.name);
      if (t.dtype != Dtype::kF32 || t.shape != Shape(std::span<const int64_t>(row.shape)))
        fail(ErrorKind::kData, "'{}': tensor '{}' is {} {}: its model configuration asks for F32 {}",
             saved.directory(), row.name, to_string(t.dtype), to_string(t.shape),
             to_string(Shape(std::span<const int64_t>(row.shape))));
    }
  }

  std::vector<io::TensorDeclaration> declarations() const {
    std::vector<io::TensorDeclaration> out;
    for (const ParameterRow& row : rows_)
      out.push_back({row.name, std::string(to_string(dtype_)), hf_shape(row)});
    return out;
  }

  std::vector<std::byte> bytes(const std::string& name) const {
    for (const ParameterRow& row : rows_) {
      if (row.name != name) continue;
      std::vector<float> values(static_cast<size_t>(row.count()));
      nn::Parameter parameter;
      parameter.row = row;
      parameter.weight.value = view_of(values.data(), Shape(std::span<const int64_t>(row.shape)));
      saved_.load(name, parameter.weight.value);
      return hf_tensor_bytes(parameter, dtype_);
    }
    STOKER_CHECK(false, "{} is not in the table", name);
    return {};
  }

  int64_t parameters() const {
    int64_t n = 0;
    for (const ParameterRow& row : rows_) n += row.count();
    return n;
  }

 private:
  const checkpoint::Checkpoint& saved_;
  std::vector<ParameterRow> rows_;
  Dtype dtype_;
};

}  // namespace

ExchangeReport import_hugging_face(io::FileSystem& fs, const std::string& directory, const std::string& out) {
  const std::string config_path = io::join(directory, "config.json");
  if (!fs.exists(config_path))
    fail(ErrorKind::kUsage, "'{}' is not a Hugging Face model directory: it has no config.json", directory);
  if (checkpoint::Store(fs, out).latest())
    fail(ErrorKind::kUsage, "'{}' holds a checkpoint already. Choose another --out or remove it first.", out);
  HfConfig config = parse_hf_config(io::read_text(fs, config_path), config_path);
  const io::SafetensorsSet files(fs, directory);
  config.dtype = stored_dtype(files, config.dtype);
  nn::ParameterStore store(config.model, Precision::kFp32, false);
  load_hf_weights(files, store);
  stop_if_asked("the import");

  std::vector<checkpoint::Attachment> attachments;
  for (const char* name : kCarried)
    if (const std::string path = io::join(directory, name); fs.exists(path))
      attachments.push_back({name, io::read_text(fs, path)});
  std::vector<checkpoint::TensorToSave> tensors;
  for (const nn::Parameter& p : store.parameters()) tensors.push_back({p.row.name, p.weight.value});
  checkpoint::TrainingState state;
  state.model_config = to_hf_config(config);
  state.software = "stoker " STOKER_VERSION;
  state.trainer = nlohmann::json{{"imported_from", directory}}.dump();
  checkpoint::Store target(fs, out);
  checkpoint::BackgroundWriter writer(target, {.tries = 1});
  writer.start(std::move(tensors), state, std::move(attachments));
  const checkpoint::SaveOutcome done = *writer.wait();
  if (done.error) throw *done.error;
  ExchangeReport report;
  report.out = done.directory, report.dtype = config.dtype, report.weights_hash = done.weights_hash.hex();
  report.parameters = store.values().count(), report.bytes = done.bytes;
  report.files = fs.list(done.directory);
  report.warnings = config.warnings;
  return report;
}

ExchangeReport export_hugging_face(io::FileSystem& fs, const std::string& path, const std::string& out,
                                   const ExportOptions& options) {
  const auto saved = checkpoint::Checkpoint::open(fs, checkpoint::resolve_checkpoint(fs, path));
  HfConfig config = parse_hf_config(saved.state().model_config, saved.directory() + ": model configuration");
  if (!options.dtype.empty()) config.dtype = options.dtype;
  const TensorExporter tensors(saved, config.model, dtype_of_name(config.dtype));
  const io::ShardPlan plan = io::plan_shards(tensors.declarations(), options.max_file_bytes);
  ExchangeReport report;
  report.out = out, report.dtype = config.dtype, report.weights_hash = saved.weights_hash().hex();
  report.parameters = tensors.parameters();

  io::AtomicDirectory target(fs, out);
  {
    Progress progress("export",
                      static_cast<uint64_t>(report.parameters) * dtype_size(dtype_of_name(config.dtype)));
    for (size_t i = 0; i < plan.files.size(); ++i) {
      io::SafetensorsWriter file(fs, io::join(target.staging(), plan.files[i]), plan.tensors[i],
                                 {{"format", "pt"}});
      for (const io::TensorEntry& t : file.tensors()) {
        stop_if_asked("the export");
        const std::vector<std::byte> bytes = tensors.bytes(t.name);
        file.write(t.name, bytes.data(), bytes.size());
        report.bytes += bytes.size();
        progress.add(bytes.size());
      }
      file.finish();
    }
  }
  if (!plan.index.empty())
    write_synced(fs, io::join(target.staging(), "model.safetensors.index.json"), plan.index);
  for (const checkpoint::Attachment& f : companion_files(saved, config))
    write_synced(fs, io::join(target.staging(), f.name), f.contents);
  report.files = fs.list(target.staging());
  target.commit();
  return report;
}

}  // namespace stoker::cli
