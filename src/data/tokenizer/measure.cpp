#include "data/tokenizer/measure.h"

#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/median.h"
#include "base/threads.h"
#include "data/tokenizer/piece_counter.h"
#include "data/tokenizer/split_batch.h"

namespace stoker::tokenizer {

double TokenizerSpeed::mb_per_s(const std::vector<double>& passes) const {
  if (passes.empty()) return 0;
  return static_cast<double>(bytes) / 1e6 / median(passes);
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

  const PieceFinder find(options.split);
  PieceCounter distinct;
  for_each_piece(find, text, [&](std::string_view piece) { distinct.add(piece, piece.size()); });
  speed.distinct_pieces = distinct.distinct();
  at = monotonic_s();
  uint64_t pieces = 0;
  for_each_piece(find, text, [&](std::string_view piece) { pieces += !piece.empty(); });
  speed.split_s = lap();
  speed.pieces = pieces;

  // First passes with a tokenizer and memory of their own each; further ones with the last.
  std::vector<int32_t> tokens;
  std::optional<Tokenizer> fresh;
  for (int i = 0; i < std::max(1, passes); ++i) {
    fresh.emplace(trained.definition());
    std::vector<int32_t>().swap(tokens);
    tokens.reserve(text.size() / 2);
    at = monotonic_s();
    fresh->encode_append(text, tokens);
    speed.encode_first_s.push_back(lap());
  }
  speed.tokens = tokens.size();
  for (int i = 0; i < passes; ++i) {
    tokens.clear();
    at = monotonic_s();
    fresh->encode_append(text, tokens);
    speed.encode_s.push_back(lap());
  }
  at = monotonic_s();
  const std::string back = fresh->decode(tokens);
  speed.decode_s = lap();
  STOKER_CHECK(options.nfc || back == text, "decoding gave another text");
  return speed;
}

}  // namespace stoker::tokenizer
