#include "eval/sampler.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/random.h"

namespace stoker::eval {

void validate(const SamplerSettings& s) {
  if (!(s.temperature >= 0 && s.temperature <= 100))
    fail(ErrorKind::kUsage, "--temperature is {}: expected 0 to 100", s.temperature);
  if (s.top_k < 0) fail(ErrorKind::kUsage, "--top-k is {}: expected 0 (all) or more", s.top_k);
  if (!(s.top_p > 0 && s.top_p <= 1))
    fail(ErrorKind::kUsage, "--top-p is {}: expected above 0, at most 1", s.top_p);
}

int32_t sample(std::span<const float> logits, const SamplerSettings& s, uint64_t draw) {
  std::vector<std::pair<double, int32_t>> ranked;
  for (size_t i = 0; i < logits.size(); ++i)
    ranked.emplace_back(static_cast<double>(logits[i]), static_cast<int32_t>(i));
  const auto likelier = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  if (s.temperature == 0) return std::min_element(ranked.begin(), ranked.end(), likelier)->second;
  const size_t keep = s.top_k ? std::min(ranked.size(), static_cast<size_t>(s.top_k)) : ranked.size();
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<ptrdiff_t>(keep), ranked.end(), likelier);
  ranked.resize(keep);
  double total = 0;
  for (auto& [p, id] : ranked)
    p = std::exp((p - static_cast<double>(logits[static_cast<size_t>(ranked[0].second)])) / s.temperature),
    total += p;
  double kept = 0;
  size_t n = 0;
  while (n < ranked.size() && kept < s.top_p * total) kept += ranked[n++].first;
  ranked.resize(std::max<size_t>(n, 1));
  const double u = static_cast<double>(random_u64({s.seed, 0x73616d70}, draw) >> 11) * 0x1p-53 * kept;
  double sum = 0;
  for (const auto& [p, id] : ranked)
    if ((sum += p) > u) return id;
  return ranked.back().second;
}

}  // namespace stoker::eval
