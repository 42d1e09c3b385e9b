// data/loader/feed_description.h
// A feed in words that a checkpoint keeps: which data under which names, which weights from which sample on. Read back to tell whether a
// run that goes on would have seen the same samples so far.
//   {"format":"stoker-feed","version":1,
//    "sources":[{"name","dataset","split","plan","samples_per_epoch","shuffle_rows","seed"}],   by name
//    "phases":[{"first_sample":0,"weights":{"code":3,"web":7}}]}                                weights in lowest terms
// Errors        Data: names the field, what was expected and what was found
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::data {

struct SourceIdentity {
  std::string name, dataset, split, plan;  // plan: its hash, or empty
  uint64_t samples_per_epoch = 0, shuffle_rows = 0, seed = 0;
  bool operator==(const SourceIdentity&) const = default;
};

struct DescribedPhase {
  uint64_t first_sample = 0;
  std::map<std::string, uint64_t> weights;  // sources that have one
  bool operator==(const DescribedPhase&) const = default;
};

struct FeedDescription {
  std::vector<SourceIdentity> sources;
  std::vector<DescribedPhase> phases;  // the first one from sample 0
  bool operator==(const FeedDescription&) const = default;

  std::string to_json() const;  // canonical
  static FeedDescription parse(std::string_view json, std::string_view where);
};

// What differs between two feeds in samples [0, samples), in words; empty: nothing. Both pick the same sample of the same source for
// each of them exactly when this is empty.
std::string past_difference(const FeedDescription& before, const FeedDescription& now, uint64_t samples,
                            uint64_t samples_per_step);

}  // namespace stoker::data
