// data/tokenizer/measure.h
// How fast this room is on a given text: what `stoker bench tokenizer` prints. Times are wall time of work in
// memory.
#pragma once
#include <string_view>
#include <vector>

#include "data/tokenizer/trainer.h"

namespace stoker::tokenizer {

struct TokenizerSpeed {
  uint64_t bytes = 0, pieces = 0, distinct_pieces = 0, tokens = 0;
  int train_threads = 0;
  double count_s = 0, merge_s = 0;  // training: counting pieces, finding merges
  double split_s = 0;               // one thread, pieces only
  std::vector<double>
      encode_first_s;  // one thread, each with a tokenizer that has encoded nothing yet and new memory for the tokens
  std::vector<double> encode_s;  // one thread, each further pass over the text
  double decode_s = 0;           // one thread
  double train_mb_per_s() const { return static_cast<double>(bytes) / 1e6 / (count_s + merge_s); }
  // Of the median pass; of first ones where there are no further ones.
  double encode_mb_per_s() const { return mb_per_s(encode_s.empty() ? encode_first_s : encode_s); }
  double encode_first_mb_per_s() const { return mb_per_s(encode_first_s); }

 private:
  double mb_per_s(const std::vector<double>& passes) const;
};

// Trains with `options` on the text, then encodes it `passes` times (at least once) afresh and as often again. Internal: the text does not come back.
TokenizerSpeed measure_tokenizer(std::string_view text, const TrainOptions& options, int passes);

}  // namespace stoker::tokenizer
