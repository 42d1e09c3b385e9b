#include "plan/catalog_files.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "base/embedded_file.h"
#include "base/error.h"

namespace stoker::embedded {
std::span<const EmbeddedFile> catalog();
}

namespace stoker::plan {
namespace {

std::optional<std::string> content_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream bytes;
  if (!in) return std::nullopt;
  if (bytes << in.rdbuf()) return bytes.str();
  // an empty file sets the same bit as one that cannot be read
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored) && std::filesystem::is_empty(path, ignored)) return "";
  return std::nullopt;
}

}  // namespace

std::vector<std::string> catalog_names(std::string_view prefix) {
  std::vector<std::string> names;
  for (const EmbeddedFile& file : embedded::catalog())
    if (file.name.starts_with(prefix)) names.emplace_back(file.name);
  return names;
}

std::string read_text(const std::string& path, std::string_view wanted) {
  if (std::optional<std::string> text = content_of(path)) return *std::move(text);
  fail(ErrorKind::kUsage, "cannot read {}: give {}", path, wanted);
}

std::string catalog_file(std::string_view name) {
  if (const char* directory = std::getenv("STOKER_CATALOG"); directory != nullptr && *directory != '\0') {
    const std::filesystem::path path = std::filesystem::path(directory) / name;
    if (std::error_code ignored; std::filesystem::exists(path, ignored)) {
      if (std::optional<std::string> text = content_of(path)) return *std::move(text);
      fail(ErrorKind::kStorage, "cannot read catalog file {}: check its permissions", path.string());
    }
  }
  for (const EmbeddedFile& file : embedded::catalog())
    if (file.name == name) return std::string(file.content);
  std::string known;
  for (const EmbeddedFile& file : embedded::catalog()) known += fmt::format("\n  {}", file.name);
  fail(ErrorKind::kUsage, "no catalog file {}; there are:{}", name, known);
}

}  // namespace stoker::plan
