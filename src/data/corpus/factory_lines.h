// data/corpus/factory_lines.h
// A `lines` stage over the whole corpus: spans that stand in several documents stay in one, and the chunks' texts are written anew
// under keys of what was removed.
// Memory  recipe.memory_bytes as dedup_lines.h says, and one chunk
#pragma once
#include "data/corpus/factory_decide.h"

namespace stoker::corpus {

// The chunks' segments begin anew behind stage s. Returns the bytes of the texts that were looked at.
uint64_t remove_repeated_lines(size_t s, const Recipe& recipe, const DocumentDecisions& decisions,
                               const ChunkColumns& columns, const ArtifactStore& store, Corpus& corpus);

}  // namespace stoker::corpus
