// data/shard/strict_json.h
// JSON that this program wrote and reads back: whole numbers only, no repeated and no unknown field, bounded depth. One object is read
// field by field through Fields; what was not asked for is refused.
// Errors        Data: names the file and the field, what was expected and what was found
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>

#include "data/shard/manifest.h"

namespace stoker::data {

// `advice` ends the message for text that is no JSON.
nlohmann::json parse_strict_object(std::string_view text, std::string_view file,
                                   std::string_view advice = "build the dataset again");

class Fields {
 public:
  Fields(const nlohmann::json& json, std::string file, std::string path);
  std::string path(std::string_view name) const;
  bool has(const char* name) const { return json_.contains(name); }
  const nlohmann::json& at(const char* name);
  uint64_t whole(const char* name);
  int64_t id(const char* name);  // a token id, or null (-1) for none
  std::string text(const char* name);
  FileRecord file_record(const char* name);
  // The first two fields of every such file: "format" and "version". `otherwise` ends the message about another format.
  void expect_format(std::string_view format, uint64_t version, std::string_view otherwise = "");
  [[noreturn]] void fail_field(std::string_view name, std::string_view expected,
                               const nlohmann::json& found) const;
  void no_others() const;
  const std::string& file() const { return file_; }

 private:
  const nlohmann::json& json_;
  std::string file_, path_;
  std::set<std::string> seen_;
};

// A name that stays inside its directory: letters, digits, '_', '-', '.', not hidden.
bool is_plain_name(std::string_view name);
nlohmann::json to_json(const FileRecord& file);

}  // namespace stoker::data
