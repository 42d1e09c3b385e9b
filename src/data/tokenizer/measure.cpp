#include "data/tokenizer/measure.h"

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "base/threads.h"
#include "data/tokenizer/split_batch.h"

namespace stoker::tokenizer {

double TokenizerSpeed::encode_mb_per_s() const {
  if (encode_s.empty()) return encode_first_mb_per_s();
  std::vector<double> sorted = encode_s;
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2),
                   sorted.end());
  return static_cast<double>(bytes) / 1e6 / sorted[sorted.size() / 2];
}

TokenizerSpeed measure_tokenizer(std::string_view text, const TrainOptions& options, int passes) {
  TokenizerSpeed speed;
  speed.bytes = text.size();
  speed.train_threads = compute_threads();
  double at = monotonic_s();
  auto lap = [&] {
    const double before = at;
    return (at = monotonic_s()) - before;
  };
  BpeTrainer trainer(options);
  trainer.add_parallel(text);
  speed.count_s = lap();
  const Tokenizer trained = trainer.train();
  speed.merge_s = lap();
  speed.distinct_pieces = trainer.counts().distinct;

  at = monotonic_s();
  uint64_t pieces = 0;
  for_each_piece(PieceFinder(options.split), text, [&](std::string_view piece) { pieces += !piece.empty(); });
  speed.split_s = lap();
  speed.pieces = pieces;

  const Tokenizer fresh(trained.definition());
  std::vector<int32_t> tokens;
  tokens.reserve(text.size() / 2);
  at = monotonic_s();
  fresh.encode_append(text, tokens);
  speed.encode_first_s = lap();
  speed.tokens = tokens.size();
  for (int i = 0; i < passes; ++i) {
    tokens.clear();
    at = monotonic_s();
    fresh.encode_append(text, tokens);
    speed.encode_s.push_back(lap());
  }
  at = monotonic_s();
  const std::string back = fresh.decode(tokens);
  speed.decode_s = lap();
  STOKER_CHECK(options.nfc || back == text, "decoding gave another text");
  return speed;
}

}  // namespace stoker::tokenizer
