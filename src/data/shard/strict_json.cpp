#include "data/shard/strict_json.h"

#include <algorithm>

#include "base/error.h"

namespace stoker::data {
namespace {
using Json = nlohmann::json;
constexpr size_t kMaxDepth = 32;

// Refuses what the format does not allow, in one pass before anything is built. (The parser's own callback looks through all of a list
// at the end of each of its members: a manifest of 20,000 shards took 15 s.)
class Strict final : public nlohmann::json_sax<Json> {
 public:
  explicit Strict(std::string_view file) : file_(file) {}
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t& digits) override {
    fail(ErrorKind::kData, "{}: expected whole numbers only, found {}", file_, digits);
  }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override {
    deeper();
    keys_.emplace_back();
    return true;
  }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second)
      fail(ErrorKind::kData, "{}: the field \"{}\" is there twice", file_, name);
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(size_t) override {
    deeper();
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool parse_error(size_t, const std::string&, const Json::exception&) override { return false; }

 private:
  void deeper() {
    if (++depth_ > kMaxDepth) fail(ErrorKind::kData, "{}: nested deeper than {} levels", file_, kMaxDepth);
  }
  std::string_view file_;
  std::vector<std::set<std::string>> keys_;
  size_t depth_ = 0;
};
}  // namespace

Json parse_strict_object(std::string_view text, std::string_view file, std::string_view advice) {
  Strict strict(file);
  try {
    Json::sax_parse(text, &strict);  // what is no JSON at all, the parser below says better
    Json json = Json::parse(text);
    if (!json.is_object())
      fail(ErrorKind::kData, "{}: expected a JSON object, found {}", file, json.type_name());
    return json;
  } catch (const Json::exception& e) {
    fail(ErrorKind::kData, "{}: not valid JSON: {}. It was cut short or edited by hand; {}", file, e.what(),
         advice);
  }
}

Fields::Fields(const Json& json, std::string file, std::string path)
    : json_(json), file_(std::move(file)), path_(std::move(path)) {
  if (!json.is_object())
    fail(ErrorKind::kData, "{}: field \"{}\": expected an object, found {}", file_, path_, json.type_name());
}

std::string Fields::path(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

const Json& Fields::at(const char* name) {
  seen_.insert(name);
  const auto it = json_.find(name);
  if (it == json_.end()) fail(ErrorKind::kData, "{}: the field \"{}\" is missing", file_, path(name));
  return *it;
}

uint64_t Fields::whole(const char* name) {
  const Json& v = at(name);
  if (!v.is_number_unsigned()) fail_field(name, "a whole number >= 0", v);
  return v.get<uint64_t>();
}

int64_t Fields::id(const char* name) {
  const Json& v = at(name);
  if (v.is_null()) return -1;
  if (!v.is_number_unsigned() || v.get<uint64_t>() > INT32_MAX) fail_field(name, "a token id or null", v);
  return v.get<int64_t>();
}

std::string Fields::text(const char* name) {
  const Json& v = at(name);
  if (!v.is_string()) fail_field(name, "a string", v);
  return v.get<std::string>();
}

FileRecord Fields::file_record(const char* name) {
  Fields f(at(name), file_, path(name));
  FileRecord out{f.text("name"), f.whole("bytes"), {}};
  if (!is_plain_name(out.name))
    fail(ErrorKind::kData,
         "{}: field \"{}\": expected a plain file name (letters, digits, '_', '-', '.'), found \"{}\"", file_,
         f.path("name"), out.name);
  out.hash = hash_from_hex(f.text("xxh3_128"), file_, f.path("xxh3_128"));
  f.no_others();
  return out;
}

void Fields::expect_format(std::string_view format, uint64_t version, std::string_view otherwise) {
  if (const auto found = text("format"); found != format)
    fail(ErrorKind::kData, "{}: field \"format\": expected \"{}\", found \"{}\"{}", file_, format, found,
         otherwise);
  if (const auto found = whole("version"); found != version)
    fail(ErrorKind::kData, "{}: field \"version\": this Stoker reads version {}, found {}", file_, version,
         found);
}

void Fields::fail_field(std::string_view name, std::string_view expected, const Json& found) const {
  std::string shown = found.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (shown.size() > 60) shown = shown.substr(0, 60) + "...";
  fail(ErrorKind::kData, "{}: field \"{}\": expected {}, found {}", file_, path(name), expected, shown);
}

void Fields::no_others() const {
  for (const auto& item : json_.items())
    if (!seen_.count(item.key()))
      fail(ErrorKind::kData, "{}: unknown field \"{}\": written by a newer Stoker? This one reads version 1",
           file_, path(item.key()));
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name.size() <= 200 && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
                  c == '-' || c == '.';
         });
}

Json to_json(const FileRecord& f) {
  return {{"name", f.name}, {"bytes", f.bytes}, {"xxh3_128", f.hash.hex()}};
}

}  // namespace stoker::data
