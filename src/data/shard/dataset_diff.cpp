#include "data/shard/dataset_diff.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "data/shard/document_table.h"

namespace stoker::data {
namespace {
using Json = nlohmann::json;

// Of a list of named entries, such as the stages of a build: "near", "label web". Empty where an entry has no name or two have one.
std::map<std::string, Json> by_name(const Json& list) {
  std::map<std::string, Json> out;
  for (const Json& entry : list) {
    if (!entry.is_object() || !entry.value("use", Json()).is_string()) return {};
    std::string name = entry["use"].get<std::string>();
    if (const Json own = entry.value("name", Json()); own.is_string()) name += " " + own.get<std::string>();
    if (!out.emplace(name, entry).second) return {};
  }
  return out;
}

class SettingsDiff {
 public:
  void compare(const Json& a, const Json& b, const std::string& path) {
    if (a == b) return;
    const size_t before = found_.size();
    if (a.is_object() && b.is_object()) {
      std::set<std::string> keys;
      for (const auto& item : a.items()) keys.insert(item.key());
      for (const auto& item : b.items()) keys.insert(item.key());
      for (const auto& key : keys)
        compare(a.value(key, Json()), b.value(key, Json()), path.empty() ? key : path + "." + key);
    } else if (a.is_array() && b.is_array()) {
      compare_lists(a, b, path);
    }
    // Where only the order differs, or the kind of value: both as they are.
    if (found_.size() == before) note(a, b, path);
  }
  std::vector<std::string> take() { return std::move(found_); }

 private:
  void compare_lists(const Json& a, const Json& b, const std::string& path) {
    const auto before = by_name(a), after = by_name(b);
    if (before.empty() || after.empty()) {
      for (const Json& entry : a)
        if (std::find(b.begin(), b.end(), entry) == b.end()) note(entry, Json(), path);
      for (const Json& entry : b)
        if (std::find(a.begin(), a.end(), entry) == a.end()) note(Json(), entry, path);
      return;
    }
    for (const auto& [name, entry] : before) {
      const auto other = after.find(name);
      compare(entry, other == after.end() ? Json() : other->second, path + "." + name);
    }
    for (const auto& [name, entry] : after)
      if (!before.count(name)) note(Json(), entry, path + "." + name);
  }
  void note(const Json& a, const Json& b, const std::string& path) {
    const auto text = [](const Json& j) { return j.is_null() ? "nothing" : j.dump(); };
    found_.push_back(fmt::format("{}: {} -> {}", path, text(a), text(b)));
  }
  std::vector<std::string> found_;
};

std::map<std::string, std::string> sources_of(const Dataset& dataset, io::FileSystem& fs) {
  std::map<std::string, std::string> out;  // "input/name" -> content hash
  const std::string path = dataset.path_of(dataset.manifest().sources);
  const std::string text = io::read_text(fs, path, uint64_t{1} << 32);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const Json line = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(at),
                                  text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (!line.is_object()) fail(ErrorKind::kData, "{}: byte {}: expected one JSON object per line", path, at);
    at = end + 1;
    out[fmt::format("{}/{}", line.value("input", 0), line.value("name", ""))] = line.value("xxh3_128", "");
  }
  return out;
}

std::vector<std::pair<Hash128, uint64_t>> documents_of(const Dataset& dataset, io::FileSystem& fs,
                                                       const SplitRecord* split) {
  std::vector<std::pair<Hash128, uint64_t>> out;
  if (!split) return out;
  for (const auto& shard : split->shards) {
    if (shard.docs.name.empty())
      fail(ErrorKind::kUsage, "{}: shard {} has no document table", dataset.directory(), shard.bin.name);
    const auto file = fs.open_read(dataset.path_of(shard.docs));
    const auto table = DocumentTable::parse(file->map(), dataset.path_of(shard.docs));
    for (uint64_t d = 0; d < table.documents(); ++d)
      out.emplace_back(table.at(d).text_hash, table.at(d).text_bytes);
  }
  std::sort(out.begin(), out.end());
  return out;
}
}  // namespace

DatasetDiff diff_datasets(const Dataset& before, const Dataset& after, io::FileSystem& fs) {
  DatasetDiff diff;
  diff.same = before.hash() == after.hash();
  if (diff.same) return diff;
  SettingsDiff settings;
  settings.compare(Json::parse(before.manifest().settings), Json::parse(after.manifest().settings), "");
  diff.settings = settings.take();
  diff.tokenizer_changed = before.manifest().tokenizer != after.manifest().tokenizer;
  diff.token_type_changed = before.manifest().token_type != after.manifest().token_type;
  const auto old_sources = sources_of(before, fs), new_sources = sources_of(after, fs);
  for (const auto& [name, hash] : old_sources) {
    const auto it = new_sources.find(name);
    if (it == new_sources.end()) diff.sources_removed.push_back(name);
    else if (it->second != hash) diff.sources_changed.push_back(name);
  }
  for (const auto& [name, hash] : new_sources)
    if (!old_sources.count(name)) diff.sources_added.push_back(name);
  std::set<std::string> names;
  for (const auto* d : {&before, &after})
    for (const auto& s : d->manifest().splits) names.insert(s.name);
  for (const auto& name : names) {
    const auto a = documents_of(before, fs, before.manifest().find_split(name));
    const auto b = documents_of(after, fs, after.manifest().find_split(name));
    auto& split = diff.splits[name];
    size_t i = 0, j = 0;
    while (i < a.size() || j < b.size()) {
      if (j == b.size() || (i < a.size() && a[i] < b[j]))
        ++split.removed, split.removed_bytes += a[i++].second;
      else if (i == a.size() || b[j] < a[i]) ++split.added, split.added_bytes += b[j++].second;
      else ++split.kept, ++i, ++j;
    }
  }
  return diff;
}

}  // namespace stoker::data
