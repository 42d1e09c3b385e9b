#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "io/safetensors.h"

namespace stoker::io {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

bool ends_with(std::string_view name, std::string_view end) {
  return name.size() >= end.size() && name.ends_with(end);
}

// name -> file, from the index. The files lie beside it: anything that could point elsewhere is refused.
std::map<std::string, std::string> parse_weight_map(const std::string& text, const std::string& where) {
  const auto j = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (j.is_discarded()) fail(ErrorKind::kData, "'{}': not valid JSON", where);
  if (!j.is_object() || !j.contains("weight_map") || !j["weight_map"].is_object())
    fail(ErrorKind::kData, "'{}': expected an object 'weight_map' from tensor to file", where);
  std::map<std::string, std::string> out;
  for (const auto& [tensor, file] : j["weight_map"].items()) {
    const bool plain = file.is_string() && ends_with(file.get<std::string>(), ".safetensors") &&
                       file.get<std::string>().find('/') == std::string::npos;
    if (!plain)
      fail(ErrorKind::kData,
           "'{}': tensor '{}' is said to be in {}: expected the name of a .safetensors file beside it", where,
           tensor, file.dump());
    out[tensor] = file.get<std::string>();
  }
  return out;
}

[[noreturn]] void fail_nothing_here(FileSystem& fs, const std::string& path) {
  std::string pickle;
  for (const std::string& name : fs.list(path))
    if (ends_with(name, ".bin") || ends_with(name, ".pt") || ends_with(name, ".pth")) pickle = name;
  if (!pickle.empty())
    fail(ErrorKind::kUsage,
         "'{}' holds its weights as a Python pickle ('{}'), which can run code when read. Expected {}: save "
         "the model as "
         "safetensors first.",
         path, pickle, kSingle);
  fail(ErrorKind::kUsage, "'{}' holds no weights: expected {} or {}", path, kSingle, kIndex);
}

}  // namespace

SafetensorsSet::SafetensorsSet(FileSystem& fs, const std::string& path) : path_(path) {
  const auto add_file = [&](const std::string& file) {
    files_.push_back(std::make_unique<SafetensorsFile>(fs, file, Access::kSequential));
    return files_.back().get();
  };
  const auto add_all = [&](const SafetensorsFile* file) {
    for (const TensorEntry& t : file->tensors()) tensors_[t.name] = {file, &t};
  };
  if (!fs.info(path).directory) {
    add_all(add_file(path));
    return;
  }
  if (fs.exists(join(path, kIndex))) {
    const std::string index = join(path, kIndex);
    std::map<std::string, const SafetensorsFile*> opened;
    for (const auto& [tensor, file] : parse_weight_map(read_text(fs, index), index)) {
      const SafetensorsFile*& f = opened[file];
      if (!f) f = add_file(join(path, file));
      tensors_[tensor] = {f, &f->at(tensor)};
    }
    return;
  }
  if (!fs.exists(join(path, kSingle))) fail_nothing_here(fs, path);
  add_all(add_file(join(path, kSingle)));
}

const SafetensorsSet::Location* SafetensorsSet::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

ShardPlan plan_shards(std::vector<TensorDeclaration> tensors, uint64_t max_bytes) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  ShardPlan plan;
  uint64_t in_file = 0, total = 0;
  for (TensorDeclaration& t : tensors) {
    const uint64_t bytes = declared_bytes(t);
    total = checked_add(total, bytes, "model");
    if (plan.tensors.empty() || (in_file > 0 && bytes > max_bytes - std::min(in_file, max_bytes))) {
      plan.tensors.emplace_back();
      in_file = 0;
    }
    in_file += bytes;
    plan.tensors.back().push_back(std::move(t));
  }
  if (plan.tensors.empty()) plan.tensors.emplace_back();
  if (plan.tensors.size() == 1) {
    plan.files = {kSingle};
    return plan;
  }
  nlohmann::json map = nlohmann::json::object();
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    plan.files.push_back(fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, plan.tensors.size()));
    for (const TensorDeclaration& t : plan.tensors[i]) map[t.name] = plan.files.back();
  }
  plan.index =
      nlohmann::json{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}}.dump(2) + "\n";
  return plan;
}

}  // namespace stoker::io
