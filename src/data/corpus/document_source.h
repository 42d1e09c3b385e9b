// data/corpus/document_source.h
// Which files a list of inputs means, and what is in them. An input is a file, a folder (walked in name
// order, hidden files and linked folders left out) or a glob (*, ?, [..] within a name; ** over folders; a folder that
// matches means all in it).
// Format        by the name, less .gz .zst .xz: .txt .text .rst .md .markdown are text; .jsonl .ndjson JSON
//               lines; .tar WebDataset (member_stream.h); .mds MosaicML shards.
//               In a folder other names are left out and counted; a file or glob that names them means
//               them: they are text
// Order         inputs as given, within one by name (bytes): part of the dataset's identity
// Errors        Usage: nothing there, or nothing left; says what was looked for
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/file_system.h"

namespace stoker::corpus {

enum class SourceFormat { kText, kJsonLines, kTar, kMds };
std::string_view to_string(SourceFormat format);
SourceFormat source_format_from_string(std::string_view name);  // Usage error lists them

struct SourceFile {
  std::string path;
  std::string name;  // without where the input lies: relative to a folder, or the last part of a path;
                     // machine-independent
  uint32_t input = 0;
  SourceFormat format = SourceFormat::kText;
  uint64_t stored_bytes = 0;
};

struct SourceList {
  std::vector<SourceFile> files;
  uint64_t left_out = 0;  // files in folders whose names say nothing
  uint64_t stored_bytes() const;
};

// format: for all files, whatever their names.
SourceList list_sources(io::FileSystem& fs, const std::vector<std::string>& inputs,
                        std::optional<SourceFormat> format = {});

// By the name alone; nullopt where it says nothing.
std::optional<SourceFormat> format_of_name(std::string_view name);
bool has_glob(std::string_view path);
bool leads_nowhere(const std::string& path);  // a link to what is not there
// Whether `path` matches `pattern` as described above, part by part.
bool glob_matches(std::string_view pattern, std::string_view path);

struct MatchedFile {
  std::string path, name;  // name: relative to the last folder before the pattern's first special part
  bool named;              // false: it lies in a folder that matches
  uint64_t bytes;          // 0 for a link that leads nowhere
};
// All files that a glob means, by name.
std::vector<MatchedFile> match_files(io::FileSystem& fs, const std::string& pattern);

}  // namespace stoker::corpus
