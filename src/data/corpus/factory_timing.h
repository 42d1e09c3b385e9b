// data/corpus/factory_timing.h
// What each part of a build took. Seconds are summed over threads; any thread may add.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace stoker::corpus {

struct BuildTiming {
  std::string stage;
  double seconds = 0;  // summed over threads
  uint64_t bytes = 0;  // that went in
};

class Stopwatch {
 public:
  void add(const std::string& what, double seconds, uint64_t bytes) {
    std::lock_guard lock(mutex_);
    auto& t = timings_[what];
    t.seconds += seconds;
    t.bytes += bytes;
  }
  std::vector<BuildTiming> take() const {
    std::lock_guard lock(mutex_);
    std::vector<BuildTiming> out;
    for (const auto& [what, t] : timings_) out.push_back({what, t.seconds, t.bytes});
    return out;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, BuildTiming> timings_;
};

}  // namespace stoker::corpus
