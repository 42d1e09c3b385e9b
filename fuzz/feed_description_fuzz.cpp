// Any bytes as the data schedule of a checkpoint: a Data error, or one that reads back as itself and differs from itself nowhere.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "data/loader/feed_description.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  try {
    const auto feed = data::FeedDescription::parse({reinterpret_cast<const char*>(data), size}, "fuzz");
    STOKER_CHECK(data::FeedDescription::parse(feed.to_json(), "again") == feed);
    for (const uint64_t samples : {uint64_t{0}, uint64_t{1}, uint64_t{1000}, UINT64_MAX})
      STOKER_CHECK(data::past_difference(feed, feed, samples, 8).empty());
    auto other = feed;
    other.phases.front().weights.begin()->second += 1;
    if (other.phases.front().weights.size() > 1)
      STOKER_CHECK(!data::past_difference(feed, other, 1, 8).empty());
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
