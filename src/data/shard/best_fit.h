// data/shard/best_fit.h
// How documents fill rows of a fixed length, and what is wasted.
//   concatenate   documents back to back, cut every L tokens: nothing is padded, many documents are cut
//   best fit      only documents longer than L are cut (into pieces of L and a rest); pieces then go, longest first, each
//                 into the fullest row that still has room (Ding et al. 2024, arXiv:2404.10830)
// Cost          O(N log L) with a segment tree over the room left; 12 bytes per piece
// Determinism   equal lengths keep their order: the plan is a function of the lengths alone
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace stoker::data {

struct PackPiece {
  uint32_t document;
  uint32_t first, tokens;  // range in the document
  uint32_t row;
};

// The share of cells that show nothing.
double padding_of(uint64_t rows, uint64_t length, uint64_t tokens);

struct PackPlan {
  uint64_t length = 0, rows = 0, tokens = 0;
  std::vector<PackPiece> pieces;  // by row, in the order they were placed
  uint64_t cut_documents = 0;
  double padding() const { return padding_of(rows, length, tokens); }
};

PackPlan pack_best_fit(std::span<const uint32_t> document_tokens, uint32_t length);

// What the other way wastes: told the documents one by one, it counts.
class ConcatenatedRows {
 public:
  explicit ConcatenatedRows(uint64_t length) : length_(length) {}
  void add(uint64_t tokens);
  uint64_t rows() const { return length_ ? (tokens_ + length_ - 1) / length_ : 0; }
  uint64_t cut_documents() const { return cut_documents_; }
  double padding() const { return padding_of(rows(), length_, tokens_); }

 private:
  uint64_t length_, tokens_ = 0, cut_documents_ = 0;
};

}  // namespace stoker::data
