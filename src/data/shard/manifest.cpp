#include "data/shard/manifest.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "data/shard/strict_json.h"

namespace stoker::data {
namespace {
using Json = nlohmann::json;  // object keys sorted: dump() is the canonical form
constexpr std::string_view kDatasetFormat = "stoker-dataset";
constexpr uint64_t kVersion = 1;

Json shard_json(const ShardRecord& s) {
  Json json{{"documents", s.documents},
            {"tokens", s.tokens},
            {"text_bytes", s.text_bytes},
            {"bin", to_json(s.bin)},
            {"idx", to_json(s.idx)}};
  if (!s.docs.name.empty()) json["docs"] = to_json(s.docs);
  if (!s.sums.name.empty()) json["sums"] = to_json(s.sums);
  return json;
}

ShardRecord shard_from(const Json& json, TokenType type, const std::string& file, const std::string& path) {
  Fields f(json, file, path);
  ShardRecord s{f.whole("documents"),
                f.whole("tokens"),
                f.whole("text_bytes"),
                f.file_record("bin"),
                f.file_record("idx"),
                {},
                {}};
  if (f.has("docs")) s.docs = f.file_record("docs");
  if (f.has("sums")) s.sums = f.file_record("sums");
  f.no_others();
  const uint64_t expected = checked_mul(s.tokens, token_bytes(type), f.path("tokens"));
  if (s.bin.bytes != expected)
    fail(ErrorKind::kData, "{}: field \"{}\": {} tokens of {} are {} bytes, found {}", file,
         f.path("bin.bytes"), s.tokens, to_string(type), expected, s.bin.bytes);
  return s;
}

SplitRecord split_from(const std::string& name, const Json& json, TokenType type, const std::string& file) {
  const std::string path = "splits." + name;
  if (!is_plain_name(name)) fail(ErrorKind::kData, "{}: \"{}\" is no name for a split", file, name);
  Fields f(json, file, path);
  SplitRecord split{name, 0, 0, 0, {}};
  const uint64_t documents = f.whole("documents"), tokens = f.whole("tokens"),
                 text_bytes = f.whole("text_bytes");
  const Json& shards = f.at("shards");
  if (!shards.is_array()) f.fail_field("shards", "a list", shards);
  f.no_others();
  for (const Json& shard : shards)
    split.add(shard_from(shard, type, file, fmt::format("{}.shards[{}]", path, split.shards.size())));
  auto same = [&](const char* what, uint64_t total, uint64_t sum) {
    if (total != sum)
      fail(ErrorKind::kData, "{}: field \"{}.{}\": its shards add up to {}, found {}", file, path, what, sum,
           total);
  };
  same("documents", documents, split.documents);
  same("tokens", tokens, split.tokens);
  same("text_bytes", text_bytes, split.text_bytes);
  return split;
}

Json nullable(int64_t id) { return id < 0 ? Json(nullptr) : Json(id); }

}  // namespace

Hash128 hash_from_hex(std::string_view hex, std::string_view file, std::string_view field) {
  Hash128 h;
  bool good = hex.size() == 32;
  for (size_t i = 0; good && i < 32; ++i) {
    const char c = hex[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    good = digit >= 0;
    uint64_t& word = i < 16 ? h.high : h.low;
    word = word << 4 | static_cast<uint64_t>(digit & 15);
  }
  if (!good)
    fail(ErrorKind::kData, "{}: field \"{}\": expected 32 lower-case hexadecimal digits, found \"{}\"", file,
         field, hex);
  return h;
}

std::string canonical_json(std::string_view json, std::string_view file) {
  return parse_strict_object(json, file).dump();
}

void SplitRecord::add(ShardRecord shard) {
  documents = checked_add(documents, shard.documents, "documents of a split");
  tokens = checked_add(tokens, shard.tokens, "tokens of a split");
  text_bytes = checked_add(text_bytes, shard.text_bytes, "text bytes of a split");
  shards.push_back(std::move(shard));
}

const SplitRecord* Manifest::find_split(std::string_view name) const {
  for (const auto& s : splits)
    if (s.name == name) return &s;
  return nullptr;
}

const SplitRecord& Manifest::split(std::string_view name, std::string_view file) const {
  if (const auto* s = find_split(name)) return *s;
  std::string names;
  for (const auto& s : splits) names += (names.empty() ? "" : ", ") + s.name;
  fail(ErrorKind::kUsage, "{} has no split \"{}\": it has {}", file, name, names.empty() ? "none" : names);
}

std::string Manifest::to_json() const {
  Json split_objects = Json::object();
  for (const auto& s : splits) {
    Json shards = Json::array();
    for (const auto& shard : s.shards) shards.push_back(shard_json(shard));
    split_objects[s.name] = {{"documents", s.documents},
                             {"tokens", s.tokens},
                             {"text_bytes", s.text_bytes},
                             {"shards", std::move(shards)}};
  }
  const Json json{{"format", kDatasetFormat},
                  {"version", kVersion},
                  {"token_type", to_string(token_type)},
                  {"tokenizer",
                   {{"file", data::to_json(tokenizer.file)},
                    {"vocabulary", tokenizer.vocabulary},
                    {"eod", nullable(tokenizer.eod)},
                    {"bos", nullable(tokenizer.bos)}}},
                  {"sources", {{"file", data::to_json(sources)}, {"files", source_files}}},
                  {"settings", Json::parse(settings)},
                  {"splits", std::move(split_objects)}};
  return json.dump();
}

Manifest Manifest::parse(std::string_view text, std::string_view file_view) {
  const std::string file(file_view);
  const Json json = parse_strict_object(text, file);
  Fields f(json, file, "");
  f.expect_format(kDatasetFormat, kVersion, ": not a Stoker dataset");
  Manifest m;
  m.token_type = token_type_from_string(f.text("token_type"), file);
  Fields tokenizer(f.at("tokenizer"), file, "tokenizer");
  m.tokenizer.file = tokenizer.file_record("file");
  const uint64_t vocabulary = tokenizer.whole("vocabulary");
  if (vocabulary == 0 || vocabulary > INT32_MAX)
    fail(ErrorKind::kData, "{}: field \"tokenizer.vocabulary\": expected 1 to {}, found {}", file, INT32_MAX,
         vocabulary);
  m.tokenizer.vocabulary = static_cast<int64_t>(vocabulary);
  m.tokenizer.eod = tokenizer.id("eod");
  m.tokenizer.bos = tokenizer.id("bos");
  for (const int64_t id : {m.tokenizer.eod, m.tokenizer.bos})
    if (id >= m.tokenizer.vocabulary)
      fail(ErrorKind::kData, "{}: tokenizer: a separator has id {}, outside its vocabulary of {}", file, id,
           m.tokenizer.vocabulary);
  tokenizer.no_others();
  Fields sources(f.at("sources"), file, "sources");
  m.sources = sources.file_record("file");
  m.source_files = sources.whole("files");
  sources.no_others();
  const Json& settings = f.at("settings");
  if (!settings.is_object()) f.fail_field("settings", "an object", settings);
  m.settings = settings.dump();
  const Json& splits = f.at("splits");
  if (!splits.is_object()) f.fail_field("splits", "an object", splits);
  f.no_others();
  for (const auto& item : splits.items())
    m.splits.push_back(split_from(item.key(), item.value(), m.token_type, file));
  std::set<std::string> names{std::string(kManifestName)};
  auto once = [&](const FileRecord& record) {
    if (!record.name.empty() && !names.insert(record.name).second)
      fail(ErrorKind::kData, "{}: the file \"{}\" is named twice", file, record.name);
  };
  once(m.tokenizer.file), once(m.sources);
  for (const auto& split : m.splits)
    for (const auto& s : split.shards) once(s.bin), once(s.idx), once(s.docs), once(s.sums);
  return m;
}

}  // namespace stoker::data
