#include "data/loader/mixture.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace stoker::data {
namespace {
using Wide = unsigned __int128;

// One node of the tree divides its samples between its left leaves (weight wl of w) and its right ones.
uint64_t left_of(uint64_t m, uint64_t wl, uint64_t w) {
  return static_cast<uint64_t>((static_cast<Wide>(m) * wl + w / 2) / w);
}
// The sample (from 0) of the node that is number j of its left, or right, part.
Wide left_inverse(Wide j, uint64_t wl, uint64_t w) { return ((j + 1) * w - w / 2 + wl - 1) / wl - 1; }
Wide right_inverse(Wide j, uint64_t wr, uint64_t w) { return (j * w + w / 2) / wr; }

// Leaves [begin, end) are divided in the middle.
size_t middle(size_t begin, size_t end) { return begin + (end - begin) / 2; }
}  // namespace

// Leaves are the active sources of a phase; `sums` are prefix sums of their weights.
struct MixtureSchedule::Tree {
  const std::vector<uint64_t>& sums;

  uint64_t weight(size_t begin, size_t end) const { return sums[end] - sums[begin]; }
  // Of the first m samples, those of `leaf`.
  uint64_t count(size_t leaf, uint64_t m) const {
    for (size_t begin = 0, end = sums.size() - 1; end - begin > 1;) {
      const size_t cut = middle(begin, end);
      const uint64_t left = left_of(m, weight(begin, cut), weight(begin, end));
      if (leaf < cut) m = left, end = cut;
      else m -= left, begin = cut;
    }
    return m;
  }
  // The leaf of sample m, and its number there.
  std::pair<size_t, uint64_t> pick(uint64_t m) const {
    size_t begin = 0, end = sums.size() - 1;
    while (end - begin > 1) {
      const size_t cut = middle(begin, end);
      const uint64_t wl = weight(begin, cut), w = weight(begin, end), left = left_of(m, wl, w);
      if (left_of(m + 1, wl, w) > left) m = left, end = cut;
      else m -= left, begin = cut;
    }
    return {begin, m};
  }
  // The sample that is number `number` of `leaf`.
  uint64_t sample_of(size_t leaf, uint64_t number) const {
    struct Turn {
      bool left;
      uint64_t part, whole;
    };
    std::vector<Turn> turns;
    for (size_t begin = 0, end = sums.size() - 1; end - begin > 1;) {
      const size_t cut = middle(begin, end);
      const uint64_t w = weight(begin, end);
      if (leaf < cut) turns.push_back({true, weight(begin, cut), w}), end = cut;
      else turns.push_back({false, weight(cut, end), w}), begin = cut;
    }
    Wide j = number;
    for (auto turn = turns.rbegin(); turn != turns.rend(); ++turn) {
      j = turn->left ? left_inverse(j, turn->part, turn->whole) : right_inverse(j, turn->part, turn->whole);
      if (j >= kForever) return kForever;
    }
    return static_cast<uint64_t>(j);
  }
};

MixtureSchedule::MixtureSchedule(std::vector<MixtureSource> sources, const std::vector<MixturePhase>& phases)
    : sources_(std::move(sources)) {
  if (sources_.empty()) fail(ErrorKind::kUsage, "a mixture needs at least one source");
  for (const auto& s : sources_)
    if (s.samples_per_epoch == 0 || s.limit == 0)
      fail(ErrorKind::kUsage, "source {} has no samples, or may not be shown", s.name);
  if (phases.empty() || phases.front().first_sample != 0)
    fail(ErrorKind::kUsage, "the first phase of a mixture begins at sample 0");
  std::vector<uint64_t> used(sources_.size(), 0);
  for (size_t p = 0; p < phases.size(); ++p) {
    const auto& phase = phases[p];
    const uint64_t last = p + 1 < phases.size() ? phases[p + 1].first_sample : kForever;
    if (last <= phase.first_sample)
      fail(ErrorKind::kUsage, "phases of a mixture: one begins at sample {}, the next at {}",
           phase.first_sample, last);
    if (phase.weights.size() != sources_.size())
      fail(ErrorKind::kUsage, "a phase has {} weights for {} sources", phase.weights.size(), sources_.size());
    std::vector<uint64_t> weights = phase.weights;
    for (size_t s = 0; s < weights.size(); ++s)
      if (weights[s] > kMostWeight)
        fail(ErrorKind::kUsage, "source {}: weight {} is above {}", sources_[s].name, weights[s],
             kMostWeight);
    // Sources whose limit is reached leave one after another; each cuts the phase.
    for (uint64_t begin = phase.first_sample; begin < last;) {
      uint64_t divisor = 0;
      for (size_t s = 0; s < weights.size(); ++s)
        if (used[s] >= sources_[s].limit && weights[s]) {
          if (!sources_[s].drop_at_limit) {
            end_ = begin, ended_by_ = s;
            return;
          }
          weights[s] = 0;
        }
      for (const uint64_t w : weights) divisor = std::gcd(divisor, w);
      if (divisor == 0) {
        if (begin == 0) fail(ErrorKind::kUsage, "the first phase of a mixture gives no source a weight");
        end_ = begin, ended_by_ = sources_.size();
        return;
      }
      std::vector<uint64_t> lowest = weights;
      for (uint64_t& w : lowest) w /= divisor;
      if (phases_.empty() || phases_.back().weights != lowest) {
        phases_.push_back({begin, lowest});
        before_.push_back(used);
        active_.emplace_back();
        weights_.push_back({0});
        for (uint32_t s = 0; s < lowest.size(); ++s)
          if (lowest[s]) {
            active_.back().push_back(s);
            weights_.back().push_back(weights_.back().back() + lowest[s]);
          }
      }
      const uint64_t from = phases_.back().first_sample;
      uint64_t cut = last;
      const Tree tree{weights_.back()};
      for (size_t leaf = 0; leaf < active_.back().size(); ++leaf) {
        const size_t s = active_.back()[leaf];
        if (sources_[s].limit == UINT64_MAX) continue;
        const uint64_t beyond = tree.sample_of(leaf, sources_[s].limit - before_.back()[s]);
        if (beyond < kForever - from) cut = std::min(cut, from + beyond);
      }
      if (cut == kForever) return;
      for (size_t leaf = 0; leaf < active_.back().size(); ++leaf) {
        const size_t s = active_.back()[leaf];
        used[s] = before_.back()[s] + tree.count(leaf, cut - from);
      }
      begin = cut;
    }
  }
}

size_t MixtureSchedule::phase_of(uint64_t sample) const {
  const auto after =
      std::upper_bound(phases_.begin(), phases_.end(), sample,
                       [](uint64_t n, const MixturePhase& phase) { return n < phase.first_sample; });
  return static_cast<size_t>(after - phases_.begin()) - 1;
}

double MixtureSchedule::share(size_t phase, size_t source) const {
  return static_cast<double>(phases_[phase].weights[source]) / static_cast<double>(weights_[phase].back());
}

MixtureSchedule::Pick MixtureSchedule::pick(uint64_t sample) const {
  STOKER_CHECK(sample < end_, "sample {} of a mixture that ends at {}", sample, end_);
  const size_t p = phase_of(sample);
  const auto [leaf, number] = Tree{weights_[p]}.pick(sample - phases_[p].first_sample);
  const size_t source = active_[p][leaf];
  return {source, before_[p][source] + number};
}

uint64_t MixtureSchedule::count_in(size_t phase, size_t source, uint64_t samples) const {
  const auto& active = active_[phase];
  const auto at = std::lower_bound(active.begin(), active.end(), source);
  if (at == active.end() || *at != source) return 0;
  return Tree{weights_[phase]}.count(static_cast<size_t>(at - active.begin()), samples);
}

uint64_t MixtureSchedule::count(size_t source, uint64_t sample) const {
  sample = std::min(sample, end_);
  const size_t p = phase_of(sample);
  return before_[p][source] + count_in(p, source, sample - phases_[p].first_sample);
}

uint64_t MixtureSchedule::sample_of(size_t source, uint64_t number) const {
  // The last phase that begins with no more than `number` of them used.
  size_t p = phases_.size();
  while (p > 0 && before_[p - 1][source] > number) --p;
  if (p == 0) return kForever;
  const size_t phase = p - 1;
  const auto& active = active_[phase];
  const auto at = std::lower_bound(active.begin(), active.end(), source);
  if (at == active.end() || *at != source) return kForever;  // its weight is 0 from here on
  const uint64_t relative = Tree{weights_[phase]}.sample_of(static_cast<size_t>(at - active.begin()),
                                                            number - before_[phase][source]);
  const uint64_t first = phases_[phase].first_sample;
  if (relative < (p < phases_.size() ? phases_[p].first_sample : end_) - first) return first + relative;
  return kForever;
}

}  // namespace stoker::data
