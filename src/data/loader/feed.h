// data/loader/feed.h
// What a run is fed: one dataset, or several mixed with weights that may change over the run. Sample n is a pure function of
// (manifests, plans, schedule, seed, n): which source by MixtureSchedule (mixture.h), which of its rows by its Loader (loader.h).
// Exactly once  each source shows each of its rows once an epoch, whatever the weights, the worker count and the restarts. used() is
//               the account: how far into which source a sample number is
// Future only   description() goes into the checkpoint. A run that goes on with other settings calls past_difference(): what it may
//               not change is what has been shown already
// Seeds         a source's order depends on the run's seed and its name; the name "data" stands for a run's only dataset
// Cost          O(shards + phases x sources) to construct, reading manifests only; O(1) to start at any n
// Errors        Usage: no such dataset, split or plan; datasets of different tokenizers; sample numbers beyond the mixture's end
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/loader/loader.h"
#include "data/loader/mixture.h"

namespace stoker::data {

struct FeedSource {
  std::string name = "data";
  std::string path;
  std::string split = "train";
  std::string plan;  // packing plan; empty: the default name when FeedOptions::best_fit, else windows
  std::optional<double>
      weight;                // given for all sources or for none: then by size, so that all have equal epochs
  double max_epochs = 0;     // 0: as many as the run needs
  bool drop_at_max = false;  // true: the others go on; false: the mixture ends there
};

struct FeedPhase {
  uint64_t first_sample = 0;              // > 0: the sources' own weights hold before
  std::map<std::string, double> weights;  // a source that is not named has none
};

struct FeedOptions {
  std::vector<FeedSource> sources;
  std::vector<FeedPhase> phases;
  int64_t sequence_length = 0;
  uint64_t seed = 0;
  PackingMode mode = PackingMode::kDocumentMasks;
  bool best_fit = false;      // rows of packing plans instead of windows
  uint64_t shuffle_rows = 0;  // LoaderOptions
  std::string cache_directory;
  uint64_t cache_bytes = uint64_t{10} << 30;  // of all sources together
};

class Feed final : public SampleSource {
 public:
  Feed(io::FileSystem& fs, const FeedOptions& options);
  // Sources that are open already, by FeedOptions::sources; for tests and benchmarks.
  Feed(std::vector<Loader> loaders, const FeedOptions& options);

  void fill(uint64_t first_sample, int64_t rows, Batch& batch) const override;
  void will_fill(uint64_t first_sample, int64_t rows) const override;
  // Cells with a target in samples [first_sample, first_sample + rows) (Loader::targets_of).
  uint64_t targets_in(uint64_t first_sample, int64_t rows) const;
  uint64_t end() const { return schedule_->end(); }  // samples before this one exist
  // Why: "source code has been shown 2 times (max_epochs)".
  std::string end_reason() const;

  struct Use {
    std::string name;
    uint64_t first = 0, samples = 0;  // of the source's own numbering
    uint64_t samples_per_epoch = 0;
    double epochs() const {  // after them
      return static_cast<double>(first + samples) / static_cast<double>(samples_per_epoch);
    }
  };
  // What samples [first_sample, first_sample + count) take of each source.
  std::vector<Use> used(uint64_t first_sample, uint64_t count) const;

  const MixtureSchedule& schedule() const { return *schedule_; }
  size_t sources() const { return loaders_.size(); }
  const Loader& loader(size_t source) const { return loaders_[source]; }
  size_t find(const std::string& name) const;                          // Usage error that lists them
  const Manifest& manifest() const { return loaders_[0].manifest(); }  // its tokenizer is everybody's
  // One dataset: its version. Several: a hash over the sources.
  Hash128 manifest_hash() const;

  // Canonical JSON: the sources with the versions of their data, the phases as used.
  std::string description() const;
  // What a run that began with `saved` (a description) and has consumed `samples` finds different here in its past; empty: nothing.
  // samples_per_step is for the words.
  std::string past_difference(const std::string& saved, uint64_t samples, uint64_t samples_per_step) const;

 private:
  void will_look_up(uint64_t first_sample, int64_t rows) const;
  void join(const FeedOptions& options);
  std::vector<std::string> names_;
  std::vector<Loader> loaders_;
  std::unique_ptr<MixtureSchedule> schedule_;
};

// Letters, digits, '-', '_' and '.', as in a recipe's table of weights.
bool is_source_name(const std::string& name);
// The seed of a source's order.
uint64_t source_seed(uint64_t seed, const std::string& name);

}  // namespace stoker::data
