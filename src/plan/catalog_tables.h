// plan/catalog_tables.h
// The catalog's files of accelerators, models and software as tables; a user's own (STOKER_CATALOG) are read with
// the same care as anybody's.
// Errors      Data: naming file, line and column: no number where one is needed, one out of its range, a blank or
//             doubled name, a model that is none, a release that is no regular expression
#pragma once
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plan/catalog.h"

namespace stoker::plan {

std::string plain_name(std::string_view name);  // lower case, without ' ', '-' and '_'

template <typename T>
struct CatalogTable {
  std::vector<T> entries;
  std::vector<std::pair<std::string, size_t>> names;  // plain name or alias -> entry
  const T* find(std::string_view name) const {
    const std::string key = plain_name(name);
    for (const auto& [known, index] : names)
      if (known == key) return &entries[index];
    return nullptr;
  }
};

struct SoftwareRule {
  std::string pattern;  // lower case, found anywhere in the source text
  EngineHabits habits;
  std::string release;
  std::optional<std::regex> release_pattern;  // release is its first group that matched
};

CatalogTable<CatalogAccelerator> parse_accelerators(std::string_view csv, std::string_view file);
CatalogTable<CatalogModel> parse_models(std::string_view csv, std::string_view file);
std::vector<SoftwareRule> parse_software(std::string_view csv, std::string_view file);

}  // namespace stoker::plan
