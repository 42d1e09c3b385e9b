#include "spec/parameter_sections.h"

namespace stoker {

std::vector<ParameterSection> parameter_sections(const std::vector<ParameterRow>& table) {
  std::vector<ParameterSection> out;
  size_t at = 0;
  for (size_t i = 0; i < table.size(); ++i) {
    const size_t end = at + static_cast<size_t>(table[i].count());
    if (table[i].layer >= 0 && !out.empty() && out.back().layer == table[i].layer) {
      out.back().end = end;
      out.back().end_row = i + 1;
    } else {
      out.push_back({at, end, i, i + 1, table[i].layer});
    }
    at = end;
  }
  return out;
}

ChunkSpec whole_model(const ModelSpec& spec) { return {0, spec.layers, true, true}; }

bool trains(const ModelSpec& spec, const ChunkSpec& chunk, const ParameterRow& row) {
  if (row.layer >= 0) return row.layer >= chunk.first && row.layer < chunk.last;
  if (row.role == ParameterRole::kEmbedding) return spec.tied_embeddings ? chunk.heads : chunk.embeds;
  if (row.role == ParameterRole::kPosition) return chunk.embeds;
  return chunk.heads;  // final norm and head
}

bool reads_only(const ModelSpec& spec, const ChunkSpec& chunk, const ParameterRow& row) {
  return row.role == ParameterRole::kEmbedding && spec.tied_embeddings && chunk.embeds && !chunk.heads;
}

}  // namespace stoker
