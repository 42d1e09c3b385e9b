#include "eval/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace stoker::eval {
namespace {

// The `keep` likeliest tokens in order.
std::vector<int32_t> ranked(std::span<const float> logits, size_t keep) {
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  const auto logit = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(keep), ids.end(),
                    [&](int32_t a, int32_t b) { return logit(a) != logit(b) ? logit(a) > logit(b) : a < b; });
  ids.resize(keep);
  return ids;
}

}  // namespace

void validate(const SamplerSettings& s) {
  if (!(s.temperature >= 0 && s.temperature <= 100))
    fail(ErrorKind::kUsage, "--temperature is {}: expected 0 to 100", s.temperature);
  if (s.top_k < 0) fail(ErrorKind::kUsage, "--top-k is {}: expected 0 (all) or more", s.top_k);
  if (!(s.top_p > 0 && s.top_p <= 1))
    fail(ErrorKind::kUsage, "--top-p is {}: expected above 0, at most 1", s.top_p);
}

std::vector<Candidate> candidates(std::span<const float> logits, const SamplerSettings& s) {
  STOKER_CHECK(!logits.empty(), "no logits to choose from");
  if (s.temperature == 0) return {{ranked(logits, 1)[0], 1.0}};
  const size_t keep = s.top_k ? std::min(logits.size(), static_cast<size_t>(s.top_k)) : logits.size();
  std::vector<Candidate> out;
  double total = 0, top = 0;
  for (const int32_t id : ranked(logits, keep)) {
    const double x = static_cast<double>(logits[static_cast<size_t>(id)]) / s.temperature;
    if (out.empty()) top = x;
    out.push_back({id, std::exp(x - top)});
    total += out.back().probability;
  }
  double kept = 0;
  size_t n = 0;
  while (n < out.size() && kept < s.top_p * total) kept += out[n++].probability;
  out.resize(std::max<size_t>(n, 1));
  for (Candidate& c : out) c.probability /= kept;
  return out;
}

int32_t sample(std::span<const float> logits, const SamplerSettings& s, uint64_t draw) {
  const std::vector<Candidate> from = candidates(logits, s);
  const double u = static_cast<double>(random_u64({s.seed, 0x73616d70}, draw) >> 11) * 0x1p-53;
  double sum = 0;
  for (const Candidate& c : from)
    if ((sum += c.probability) > u) return c.token;
  return from.back().token;
}

}  // namespace stoker::eval
