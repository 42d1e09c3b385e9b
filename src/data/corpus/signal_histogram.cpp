#include "data/corpus/signal_histogram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data/corpus/quality_signals.h"

namespace stoker::corpus {
namespace {

constexpr int kShareBins = 21, kCountBins = 24;

bool is_count(int signal) {
  switch (signal) {
    case kBytes:
    case kCharacters:
    case kWords:
    case kMeanWordLength:
    case kStopWords:
    case kStopWordCount:
    case kLines:
    case kSentences:
    case kCurlyBraces:
    case kLoremIpsum:
    case kLongestWord:
    case kLongLines:
      return true;
    default:
      return false;
  }
}

}  // namespace

void SignalHistogram::add(int signal, float value, bool drop) {
  const int bin = !is_count(signal) ? std::clamp(static_cast<int>(value * 20), 0, kShareBins - 1)
                  : value < 1       ? 0
                                    : std::min(kCountBins - 1, 1 + std::ilogb(value));
  ++all[static_cast<size_t>(bin)];
  dropped[static_cast<size_t>(bin)] += drop;
}

std::vector<std::string> histogram_bins(int signal) {
  std::vector<std::string> out;
  if (is_count(signal)) {
    out.push_back("0");
    for (int b = 1; b < kCountBins; ++b) out.push_back(fmt::format("{}", uint64_t{1} << (b - 1)));
    return out;
  }
  for (int b = 0; b < kShareBins - 1; ++b) out.push_back(fmt::format("{:.2f}", static_cast<double>(b) / 20));
  out.push_back("1 or more");
  return out;
}

}  // namespace stoker::corpus
