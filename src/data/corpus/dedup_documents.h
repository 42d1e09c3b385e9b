// data/corpus/dedup_documents.h
// Exact and near-duplicate documents: who stays, who goes, and because of whom.
// Kept member   the greatest by (quality, then smaller content hash, then smaller id hash): a pure function
//               of the documents, never of their order, of threads, or of how the work was cut up
// Verdict       for each document, in the order added: the kept member of its cluster (itself when kept), the
//               document it matched most closely in a band, and the similarity the signatures estimate with
//               it
// Memory        the spill budget for each of documents, signatures, band keys and pairs, what is more goes to files in the spill
//               directory; of near duplicates 60 bytes a document in spill arrays (spill_array.h)
// Order         signatures beyond the budget are read in their order, a block of documents at a time: no seek per pair
// Errors        Storage from spilling; Internal when a signature has another length than the parameters say
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "data/corpus/dedup_spill.h"
#include "data/corpus/minhash_signature.h"
#include "data/corpus/spill_array.h"

namespace stoker::corpus {

struct DocumentKey {
  float quality = 0;
  Hash128 content;  // of the text
  Hash128 id;       // of the document's stable name (source and position)
};

// Does a stay rather than b when both say the same?
bool stays_before(const DocumentKey& a, const DocumentKey& b);

struct DuplicateVerdict {
  uint32_t kept = 0;
  uint32_t matched = 0;
  float similarity = 1;  // estimated with `matched`; 1 for exact duplicates and for kept documents
  bool operator==(const DuplicateVerdict&) const = default;
};

// Documents with equal content hashes.
class ExactDuplicateFinder {
 public:
  explicit ExactDuplicateFinder(SpillBudget spill = {})
      : directory_(spill.directory), documents_(std::move(spill)) {}
  void add(const DocumentKey& key);
  // Once; the finder is spent afterwards.
  SpillArray<DuplicateVerdict> finish();

 private:
  struct Record {
    DocumentKey key;
    uint32_t document;
  };
  std::string directory_;
  SpillTable<Record> documents_;
  uint32_t size_ = 0;
};

struct NearDuplicateOptions {
  MinHashParameters parameters;
  double min_similarity = 0;  // pairs whose signatures estimate less are not joined; 0: any shared band joins
  SpillBudget spill;
};

class NearDuplicateFinder {
 public:
  explicit NearDuplicateFinder(NearDuplicateOptions options);
  ~NearDuplicateFinder();
  // signature empty: the document has no words and matches nothing.
  void add(const DocumentKey& key, std::span<const uint32_t> signature);
  size_t size() const;
  // Once; the finder is spent afterwards.
  SpillArray<DuplicateVerdict> finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stoker::corpus
