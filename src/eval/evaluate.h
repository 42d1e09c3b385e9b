// eval/evaluate.h
// Loss of a model over a split.
//   loss = nats / targets;  bits_per_byte = nats / ln 2 / raw UTF-8 bytes: comparable between tokenizers
// Whole split (windows 0)  every target once: both numbers exact
// Part                     groups of windows spread evenly over the split; bytes are taken in proportion to tokens
// Determinism              same model bits, split, windows -> same bits
#pragma once
#include <functional>

#include "data/loader/loader.h"
#include "model/transformer.h"

namespace stoker::eval {

struct Score {
  double nats = 0, loss = 0, bits_per_byte = 0;
  int64_t targets = 0;
};

// The loader must be sequential and of the model's length; batches have `rows` windows, as the Transformer was built for.
Score evaluate(Scorer& model, const data::Loader& loader, int64_t rows, int64_t windows,
               const std::function<void(uint64_t)>& on_tokens = {});

}  // namespace stoker::eval
