#include "data/corpus/factory_lines.h"

#include <filesystem>
#include <map>

#include "data/corpus/dedup_lines.h"

namespace stoker::corpus {
namespace {

using Drops = std::map<uint32_t, std::vector<uint32_t>>;  // of a chunk: spans, by document

// The chunk without those spans, under a key of which they are.
void rewrite_chunk(const StageRecipe& stage, const Drops& drops, const ChunkColumns& columns,
                   const ArtifactStore& store, const Corpus& corpus, CorpusChunk& chunk) {
  auto dropped = [&](uint32_t i) { return corpus.documents[chunk.first + i].reason != 0; };
  KeyBuilder key("lines/1");
  key.add(chunk.text).add(stage.compute_key());
  for (uint32_t i = 0; i < chunk.documents; ++i) {
    key.add_number(!dropped(i));
    if (const auto drop = drops.find(i); drop != drops.end())
      key.add(std::string_view(reinterpret_cast<const char*>(drop->second.data()),
                               drop->second.size() * sizeof(uint32_t)));
  }
  const Hash128 after = key.key();
  if (!columns.present("text", after)) {
    auto documents = columns.documents(chunk.text);
    for (uint32_t i = 0; i < chunk.documents; ++i)
      if (dropped(i)) documents[i].text.clear();  // nobody asks for it again
    for (const auto& [i, drop] : drops) documents[i].text = remove_spans(documents[i].text, stage.span, drop);
    store.put("text", after, encode_chunk(documents));
  }
  chunk.segment = chunk.text = after;
}

}  // namespace

uint64_t remove_repeated_lines(size_t s, const Recipe& recipe, const DocumentDecisions& decisions,
                               const ChunkColumns& columns, const ArtifactStore& store, Corpus& corpus) {
  const StageRecipe& stage = recipe.stages[s];
  LineDedupOptions options;
  options.kind = stage.span;
  options.min_characters = stage.min_characters;
  options.min_documents = stage.min_documents;
  options.spill = spill_budget(recipe, "lines");
  SpillArray<uint32_t> ordinals(options.spill.directory);
  // Text behind the transforms of this segment: keys of the hash column there.
  for (auto& chunk : corpus.chunks) chunk.segment = chunk.text;
  LineDeduplicator lines(options);
  uint64_t bytes = 0;
  {
    const CorpusChunk* loaded = nullptr;
    std::vector<ChunkDocument> documents;
    decisions.for_each_survivor(s, s, [&](const CorpusChunk& chunk, uint32_t i, const DocumentKey& key) {
      if (loaded != &chunk) {
        documents = columns.documents(chunk.text);
        loaded = &chunk;
      }
      const auto& text = documents.at(i).text;
      bytes += text.size();
      lines.add(key, text);
      ordinals.push_back(static_cast<uint32_t>(chunk.first + i));
    });
  }
  // What is dropped is told in the order of documents: chunk by chunk, nothing more is held.
  Drops drops;
  size_t at_hand = 0;
  auto finish_chunk = [&] {
    rewrite_chunk(stage, drops, columns, store, corpus, corpus.chunks[at_hand++]);
    drops.clear();
  };
  lines.finish([&](uint32_t i, std::span<const uint32_t> drop) {
    const uint32_t ordinal = ordinals[i];
    while (ordinal >= corpus.chunks[at_hand].first + corpus.chunks[at_hand].documents) finish_chunk();
    drops[static_cast<uint32_t>(ordinal - corpus.chunks[at_hand].first)].assign(drop.begin(), drop.end());
    corpus.spans_removed += drop.size();
  });
  while (at_hand < corpus.chunks.size()) finish_chunk();
  std::error_code ignored;
  std::filesystem::remove_all(options.spill.directory, ignored);
  return bytes;
}

}  // namespace stoker::corpus
