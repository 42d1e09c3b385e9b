// data/loader/mixture.h
// Which source a sample comes from, when several datasets are mixed with weights that change over the run: sample n -> (source,
// its k-th sample), closed form, no random numbers, no state.
// Shares        a phase begins at a sample and gives each source a weight. The sources of a phase are the leaves of a balanced binary
//               tree; the first m samples of the phase are divided at each node by exact rounding, left(m) = floor((m wl + w/2) / w),
//               so every source is at any moment within (depth of the tree) / 2 samples of its share, and its own samples are
//               numbered 0, 1, 2 ... without a gap, through all phases
// Running out   a source has samples_per_epoch samples an epoch and begins another when they are used, or has a limit. Where a limit is
//               reached, the phase is cut: the source goes and the others share by their weights, or the mixture ends
// Future        the pick of sample n depends on the phases up to n alone: what begins later may be changed at any time
//               (feed_description.h says whether two mixtures agree on everything before a sample)
// Cost          pick, count, sample_of: O(log phases + log sources). Built in O(phases x sources x log sources)
// Errors        Usage: no source, no weight, phases out of order
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace stoker::data {

struct MixtureSource {
  std::string name;
  uint64_t samples_per_epoch = 0;
  uint64_t limit = UINT64_MAX;  // samples of the whole run
  bool drop_at_limit = false;   // true: the others go on; false: the mixture ends there
};

struct MixturePhase {
  uint64_t first_sample = 0;
  std::vector<uint64_t> weights;  // one per source, any scale; 0: not in this phase
};

class MixtureSchedule {
 public:
  static constexpr uint64_t kForever = UINT64_MAX;
  static constexpr uint64_t kMostWeight = uint64_t{1} << 40;

  // The first phase begins at sample 0, each later one behind the one before.
  MixtureSchedule(std::vector<MixtureSource> sources, const std::vector<MixturePhase>& phases);

  struct Pick {
    size_t source = 0;
    uint64_t number = 0;  // of this source's samples, through all its epochs
    bool operator==(const Pick&) const = default;
  };
  Pick pick(uint64_t sample) const;  // sample < end()
  // How many of the samples before `sample` are of this source.
  uint64_t count(size_t source, uint64_t sample) const;
  // The sample that is number `number` of the source; kForever when it never comes.
  uint64_t sample_of(size_t source, uint64_t number) const;
  // Samples before this one exist.
  uint64_t end() const { return end_; }
  // The source whose limit ends the mixture; sources().size(): all have run out together with their phases.
  size_t ended_by() const { return ended_by_; }

  const std::vector<MixtureSource>& sources() const { return sources_; }
  // As used: weights in lowest terms, equal neighbours joined, cut where a source runs out.
  const std::vector<MixturePhase>& phases() const { return phases_; }
  double share(size_t phase, size_t source) const;
  size_t phase_of(uint64_t sample) const;

 private:
  struct Tree;  // the arithmetic of one phase
  uint64_t count_in(size_t phase, size_t source, uint64_t samples) const;
  std::vector<MixtureSource> sources_;
  std::vector<MixturePhase> phases_;
  std::vector<std::vector<uint32_t>> active_;   // by phase: sources with a weight
  std::vector<std::vector<uint64_t>> weights_;  // by phase: prefix sums of their weights
  std::vector<std::vector<uint64_t>> before_;   // by phase: samples of each source before it
  uint64_t end_ = kForever;
  size_t ended_by_ = 0;
};

}  // namespace stoker::data
