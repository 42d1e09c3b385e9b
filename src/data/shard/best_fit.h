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

struct PackPlan {
  uint64_t length = 0, rows = 0, tokens = 0;
  std::vector<PackPiece> pieces;  // by row, in the order they were placed
  uint64_t cut_documents = 0;
  double padding() const {
    return rows ? 1 - static_cast<double>(tokens) / (static_cast<double>(rows) * static_cast<double>(length))
                : 0;
  }
};

PackPlan pack_best_fit(std::span<const uint32_t> document_tokens, uint32_t length);
// Rows and cut documents only.
PackPlan pack_concatenate(std::span<const uint32_t> document_tokens, uint32_t length);

}  // namespace stoker::data
