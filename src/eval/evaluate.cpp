#include "eval/evaluate.h"

#include <algorithm>
#include <numbers>

#include "base/stop.h"

namespace stoker::eval {

Score evaluate(Scorer& model, const data::Loader& loader, int64_t rows, int64_t windows,
               const std::function<void(uint64_t)>& on_tokens) {
  const uint64_t all = loader.samples_per_epoch(), step = static_cast<uint64_t>(rows);
  const bool whole = windows <= 0 || static_cast<uint64_t>(windows) >= all;
  const uint64_t groups =
      whole ? (all + step - 1) / step : std::max<uint64_t>(1, static_cast<uint64_t>(windows) / step);
  Score score;
  data::Batch batch;
  for (uint64_t g = 0; g < groups; ++g) {
    if (stop_requested()) fail(ErrorKind::kCancelled, "evaluation stopped after {} of {} batches", g, groups);
    loader.fill(whole ? g * step : g * all / groups, rows, batch);
    score.nats += model.loss(
        {batch.rows, batch.length, batch.tokens, batch.targets, batch.positions, batch.document_start});
    score.targets +=
        std::count_if(batch.targets.begin(), batch.targets.end(), [](int32_t t) { return t >= 0; });
    if (on_tokens) on_tokens(static_cast<uint64_t>(rows * batch.length));
  }
  if (!score.targets)
    fail(ErrorKind::kUsage, "the split \"{}\" has no tokens to evaluate", loader.options().split);
  score.loss = score.nats / static_cast<double>(score.targets);
  const double share = whole ? 1 : static_cast<double>(score.targets) / static_cast<double>(loader.tokens());
  score.bits_per_byte = score.nats / std::numbers::ln2 / (static_cast<double>(loader.text_bytes()) * share);
  return score;
}

}  // namespace stoker::eval
