#include "data/corpus/document_source.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/error.h"

namespace stoker::corpus {
namespace {
constexpr int kMaxDepth = 64;

std::vector<std::string> parts_of(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    if (slash != 0) parts.emplace_back(path.substr(0, slash));
    if (slash == std::string_view::npos) break;
    path.remove_prefix(slash + 1);
  }
  return parts;
}

bool match_parts(const std::vector<std::string>& pattern, size_t p, const std::vector<std::string>& path,
                 size_t at) {
  if (p == pattern.size()) return at == path.size();
  if (pattern[p] == "**") {
    for (size_t skip = at; skip <= path.size(); ++skip)
      if (match_parts(pattern, p + 1, path, skip)) return true;
    return false;
  }
  return at < path.size() && fnmatch(pattern[p].c_str(), path[at].c_str(), FNM_PERIOD) == 0 &&
         match_parts(pattern, p + 1, path, at + 1);
}

// A link to a folder could lead back up; a link to a file is a file.
bool is_linked_folder(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_symlink(path, error) && std::filesystem::is_directory(path, error);
}

}  // namespace

bool leads_nowhere(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_symlink(path, error) && !std::filesystem::exists(path, error);
}

namespace {

template <typename Visit>
void walk(io::FileSystem& fs, const std::string& directory, const std::string& prefix, int depth,
          Visit&& visit) {
  if (depth > kMaxDepth) fail(ErrorKind::kUsage, "{}: folders nested deeper than {}", directory, kMaxDepth);
  for (const auto& name : fs.list(directory)) {
    if (name.starts_with('.')) continue;
    const std::string path = io::join(directory, name),
                      relative = prefix.empty() ? name : prefix + "/" + name;
    if (is_linked_folder(path)) continue;
    if (leads_nowhere(path)) {
      visit(path, relative, 0);  // whoever wants it by its name is told when it is opened
      continue;
    }
    const auto info = fs.info(path);
    if (info.directory) walk(fs, path, relative, depth + 1, visit);
    else visit(path, relative, info.size);
  }
}

}  // namespace

namespace {
constexpr std::array<std::pair<SourceFormat, std::string_view>, 4> kFormats{
    {{SourceFormat::kText, "text"},
     {SourceFormat::kJsonLines, "jsonl"},
     {SourceFormat::kTar, "tar"},
     {SourceFormat::kMds, "mds"}}};
}

std::string_view to_string(SourceFormat format) { return kFormats[static_cast<size_t>(format)].second; }

SourceFormat source_format_from_string(std::string_view name) {
  for (const auto& [format, known] : kFormats)
    if (name == known) return format;
  fail(ErrorKind::kUsage, "format: expected text, jsonl, tar or mds, found \"{}\"", name);
}

std::optional<SourceFormat> format_of_name(std::string_view name) {
  for (const std::string_view packed : {".gz", ".zst", ".xz"})
    if (name.ends_with(packed)) {
      name.remove_suffix(packed.size());
      break;
    }
  for (const std::string_view text : {".txt", ".text", ".rst", ".md", ".markdown"})
    if (name.ends_with(text)) return SourceFormat::kText;
  for (const std::string_view lines : {".jsonl", ".ndjson"})
    if (name.ends_with(lines)) return SourceFormat::kJsonLines;
  if (name.ends_with(".tar")) return SourceFormat::kTar;
  if (name.ends_with(".mds")) return SourceFormat::kMds;
  return std::nullopt;
}

bool has_glob(std::string_view s) { return s.find_first_of("*?[") != std::string_view::npos; }

bool glob_matches(std::string_view pattern, std::string_view path) {
  return match_parts(parts_of(pattern), 0, parts_of(path), 0);
}

std::vector<MatchedFile> match_files(io::FileSystem& fs, const std::string& pattern) {
  // Walk from the last folder before the first special part.
  std::string base = pattern.starts_with('/') ? "/" : "", rest;
  const auto parts = parts_of(pattern);
  size_t fixed = 0;
  while (fixed + 1 < parts.size() && !has_glob(parts[fixed]))
    base = base.empty() ? parts[fixed] : io::join(base, parts[fixed]), ++fixed;
  for (size_t k = fixed; k < parts.size(); ++k) rest += (k == fixed ? "" : "/") + parts[k];
  std::vector<MatchedFile> found;
  const std::string folder = base.empty() ? "." : base, below = rest + "/**";
  if (!fs.exists(folder)) return found;
  walk(fs, folder, "", 0, [&](const std::string& path, const std::string& name, uint64_t bytes) {
    const bool named = glob_matches(rest, name);
    if (named || glob_matches(below, name)) found.push_back({path, name, named, bytes});
  });
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return found;
}

uint64_t SourceList::stored_bytes() const {
  uint64_t total = 0;
  for (const auto& f : files) total += f.stored_bytes;
  return total;
}

SourceList list_sources(io::FileSystem& fs, const std::vector<std::string>& inputs,
                        std::optional<SourceFormat> format) {
  SourceList list;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string& input = inputs[i];
    const size_t before = list.files.size();
    auto add = [&](const std::string& path, const std::string& name, uint64_t bytes, bool named) {
      const auto known = format ? format : format_of_name(name);
      if (!known && !named) {
        ++list.left_out;
        return;
      }
      if (bytes == 0 && leads_nowhere(path))  // a disk that is not mounted must not make a dataset smaller
        fail(ErrorKind::kData,
             "input {}: {} is a link that leads nowhere. Mend or remove it, or name the inputs by a glob "
             "without it",
             input, path);
      list.files.push_back(
          {path, name, static_cast<uint32_t>(i), known.value_or(SourceFormat::kText), bytes});
    };
    std::string looked_for;
    if (fs.exists(input)) {
      const auto info = fs.info(input);
      if (info.directory) {
        looked_for =
            "files named .txt .text .rst .md .markdown .jsonl .ndjson .tar .mds (also with .gz .zst .xz); "
            "for others "
            "give a glob or "
            "--format";
        walk(fs, input, "", 0,
             [&](const auto& path, const auto& name, uint64_t bytes) { add(path, name, bytes, false); });
      } else {
        add(input, io::name_of(input), info.size, true);
      }
    } else if (has_glob(input)) {
      looked_for = "files that match the glob";
      for (const auto& match : match_files(fs, input)) add(match.path, match.name, match.bytes, match.named);
    } else {
      fail(ErrorKind::kUsage, "input {}: there is no such file or folder. Check the path", input);
    }
    if (list.files.size() == before) fail(ErrorKind::kUsage, "input {}: found no {}", input, looked_for);
    std::sort(list.files.begin() + static_cast<std::ptrdiff_t>(before), list.files.end(),
              [](const SourceFile& a, const SourceFile& b) { return a.name < b.name; });
  }
  if (list.files.size() > UINT32_MAX)
    fail(ErrorKind::kUsage, "{} input files are too many: pack them into JSON lines", list.files.size());
  return list;
}

}  // namespace stoker::corpus
