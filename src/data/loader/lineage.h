// data/loader/lineage.h
// From a token back to its document and source, and forward to the training samples and steps that show it: arithmetic over the
// manifest, the indices and the loader's permutation, nothing recorded at run time.
// Cost          O(log documents) per question, plus what is listed; by hash: one pass over the document tables
// Errors        Usage: a token, document, sample or hash that is not there
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/loader/loader.h"
#include "data/shard/dataset.h"

namespace stoker::data {

// A document of a split, and a range of its tokens.
struct DocumentPart {
  uint64_t document = 0;  // number within the split
  DocumentPlace place;
  uint64_t first = 0, count = 0;  // of the document's own tokens
};

// The line of the dataset's sources file that a document came from.
struct SourceLine {
  std::string name, format;
  uint64_t input = 0;
};
SourceLine source_of(const Dataset& dataset, io::FileSystem& fs, const DocumentOrigin& origin);

// The documents that hold stream positions [first, first + count).
std::vector<DocumentPart> documents_at(const Dataset& dataset, io::FileSystem& fs, const SplitRecord& split,
                                       uint64_t first, uint64_t count);
// Document numbers whose text hash begins with `prefix` (hexadecimal).
std::vector<uint64_t> documents_by_hash(const Dataset& dataset, io::FileSystem& fs, const SplitRecord& split,
                                        std::string_view prefix);

// The samples of epoch `epoch` that predict any of the stream positions [first, first + count), ascending.
std::vector<uint64_t> samples_that_predict(const Loader& loader, uint64_t epoch, uint64_t first,
                                           uint64_t count);

}  // namespace stoker::data
