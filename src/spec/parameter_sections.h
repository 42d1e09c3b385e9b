// spec/parameter_sections.h
// The parameter table cut into the parts that always live and move together: each layer, and each row outside the layers (embedding,
// positions, final norm, head). Pipeline stages take whole sections; sums over parameters add up block by block inside a section
// (docs/same-bits.md), so neither depends on who holds what.
// Pure.
#pragma once
#include <cstddef>
#include <vector>

#include "spec/parameter_table.h"

namespace stoker {

struct ParameterSection {
  size_t begin = 0, end = 0;          // elements of the flat array of all parameters, in the table's order
  size_t first_row = 0, end_row = 0;  // rows of the table
  int64_t layer = -1;                 // -1: outside the layers
  size_t size() const { return end - begin; }
};

std::vector<ParameterSection> parameter_sections(const std::vector<ParameterRow>& table);

// The layers [first, last) of a model, with the embedding before them and the final norm and head behind them where it says so:
// what one worker computes as a piece.
struct ChunkSpec {
  int64_t first = 0, last = 0;
  bool embeds = true, heads = true;
  bool operator==(const ChunkSpec&) const = default;
};
ChunkSpec whole_model(const ModelSpec& spec);
// The rows that a chunk trains. A tied embedding is trained where the head is.
bool trains(const ModelSpec& spec, const ChunkSpec& chunk, const ParameterRow& row);
// A row that a chunk only reads: the tied embedding, where the head is elsewhere.
bool reads_only(const ModelSpec& spec, const ChunkSpec& chunk, const ParameterRow& row);

}  // namespace stoker
