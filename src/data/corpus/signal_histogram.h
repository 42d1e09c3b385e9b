// data/corpus/signal_histogram.h
// How one quality signal is distributed over the documents that came to a quality stage, and over those it dropped: shares in 20 equal
// bins and one for 1 and more, counts in powers of two.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace stoker::corpus {

struct SignalHistogram {
  std::array<uint64_t, 24> all{}, dropped{};
  void add(int signal, float value, bool drop);
};

// The names of the bins in use, in order: "0.05" is the share at which a bin begins, "8" the count.
std::vector<std::string> histogram_bins(int signal);

}  // namespace stoker::corpus
