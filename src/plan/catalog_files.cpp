#include "plan/catalog_files.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/embedded_file.h"
#include "base/error.h"

namespace stoker::embedded {
std::span<const EmbeddedFile> catalog();
}

namespace stoker::plan {

std::vector<std::string> catalog_names(std::string_view prefix) {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : embedded::catalog())
    if (file.name.starts_with(prefix)) names.emplace_back(file.name);
  return names;
}

std::string catalog_file(std::string_view name) {
  if (const char* directory = std::getenv("STOKER_CATALOG"); directory != nullptr && *directory != '\0') {
    const std::filesystem::path path = std::filesystem::path(directory) / name;
    if (std::error_code ignored; std::filesystem::exists(path, ignored)) {
      std::ifstream in(path, std::ios::binary);
      std::ostringstream bytes;
      if (!in || !(bytes << in.rdbuf()))
        fail(ErrorKind::kStorage, "cannot read catalog file {}: check its permissions", path.string());
      return bytes.str();
    }
  }
  for (const EmbeddedFile& file : embedded::catalog())
    if (file.name == name) return std::string(file.content);
  std::string known;
  for (const EmbeddedFile& file : embedded::catalog()) known += fmt::format("\n  {}", file.name);
  fail(ErrorKind::kUsage, "no catalog file {}; there are:{}", name, known);
}

}  // namespace stoker::plan
