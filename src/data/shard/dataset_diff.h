// data/shard/dataset_diff.h
// What changed between two versions of a dataset: settings, tokenizer, sources, documents (by the hash of their text).
// Memory        16 bytes per document of both
// Errors        Data, Storage: as the files say
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/shard/dataset.h"

namespace stoker::data {

struct DatasetDiff {
  bool same = false;                  // the same version
  std::vector<std::string> settings;  // "key: before -> after"
  bool tokenizer_changed = false, token_type_changed = false;
  std::vector<std::string> sources_added, sources_removed, sources_changed;  // by name, sorted
  struct Split {
    uint64_t kept = 0, added = 0, removed = 0;  // documents by text; copies counted each
    uint64_t added_bytes = 0, removed_bytes = 0;
  };
  std::map<std::string, Split> splits;
};

DatasetDiff diff_datasets(const Dataset& before, const Dataset& after, io::FileSystem& fs);

}  // namespace stoker::data
