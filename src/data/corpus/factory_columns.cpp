#include "data/corpus/factory_columns.h"

namespace stoker::corpus {

Hash128 ChunkColumns::transformed(Hash128 text, size_t stage) const {
  return KeyBuilder("text/1").add(text).add(context_.transform_key(stage)).key();
}

Hash128 ChunkColumns::text_at(Hash128 base, size_t begin, size_t end) const {
  for (size_t s = begin; s < end; ++s)
    if (is_transform(context_.recipe().stages[s].kind)) base = transformed(base, s);
  return base;
}

std::vector<NeededColumn> ChunkColumns::needed(Hash128 base, size_t begin, size_t end) const {
  std::vector<NeededColumn> out;
  auto add = [&](const ColumnSpec& column) {
    for (const auto& n : out)
      if (n.text == base && n.column.key == column.key) return;
    out.push_back({base, column});
  };
  add(StageContext::hash_column());
  for (size_t s = begin; s < end; ++s) {
    if (is_transform(context_.recipe().stages[s].kind)) base = transformed(base, s);
    else
      for (const auto& column : context_.columns_of(s)) add(column);
  }
  if (end < context_.recipe().stages.size())
    for (const auto& column : context_.columns_of(end)) add(column);
  add(StageContext::hash_column());
  return out;
}

std::string ChunkColumns::fetch(std::string_view kind, Hash128 key) const {
  auto bytes = store_.get(kind, key);
  if (!bytes) throw ArtifactLost{store_.path(kind, key)};
  return std::move(*bytes);
}

std::string ChunkColumns::sized(std::string_view kind, Hash128 key, uint64_t bytes) const {
  std::string out = fetch(kind, key);
  if (out.size() != bytes) throw ArtifactLost{store_.path(kind, key)};
  return out;
}

std::string ChunkColumns::column(const CorpusChunk& chunk, Hash128 text, const ColumnSpec& column) const {
  return sized("column", NeededColumn{text, column}.key(), chunk.documents * column.row_bytes);
}

std::string ChunkColumns::places(const CorpusChunk& chunk) const {
  return sized("place", chunk.raw, chunk.documents * sizeof(PlaceRow));
}

}  // namespace stoker::corpus
