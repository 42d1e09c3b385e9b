#include "model/transformer.h"

namespace stoker {

void Transformer::finish_gradients() {
  if (!chunk_.collects_lookups()) return;
  const bool gpt2 = store_.spec().family == Family::kGpt2;
  chunk_.lookups().flush(store_.find(gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight").grad);
}

}  // namespace stoker
