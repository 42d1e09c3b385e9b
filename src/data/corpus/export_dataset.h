// data/corpus/export_dataset.h
// A split of a dataset as text again, for other tools: JSON lines ({"text", "source", "record"}), WebDataset tar (<number>.txt), or
// MosaicML MDS (column "text", str; no pickle) with its index.json. The tokens themselves already lie in Megatron's format.
// Order         the split's; reading it back with `stoker data prepare` gives the same documents
// Atomic        the target appears complete or not at all
// Errors        Usage: the target exists; a document too large for the format. Data: damage in the dataset
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "data/shard/dataset.h"
#include "io/file_system.h"

namespace stoker::corpus {

enum class ExportFormat { kJsonLines, kTar, kMds };
ExportFormat export_format_from_string(std::string_view name);  // jsonl, tar or mds; Usage error lists them

struct ExportOptions {
  std::string split = "train";
  ExportFormat format = ExportFormat::kJsonLines;
  uint64_t shard_bytes = uint64_t{64} << 20;  // of an MDS shard
};

// out: a file (jsonl, tar) or a directory (mds). Returns the number of documents.
uint64_t export_dataset(io::FileSystem& fs, const data::Dataset& dataset, const std::string& out,
                        const ExportOptions& options);

}  // namespace stoker::corpus
