// trace/span_log.h
// What one process did when: spans with a name, one after another, appended to a file and summed by name.
//     {"name":"compute","step":12,"start":1795123200.125,"s":0.0312}          (docs/formats/trace.md)
// Cost         a small addition per span; the file is written about once a second, off the buffer of the C library
// Bound        the file is renamed to FILE.1 (replacing the one before) when it reaches kMostBytes: the last of a long run stays
// Errors       a file that cannot be written is given up without a word: a trace never fails a run
// Threads      next() from one thread; totals() from any
#pragma once
#include <cstdint>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

namespace stoker::trace {

class SpanLog {
 public:
  static constexpr int64_t kMostBytes = int64_t{16} << 20;
  explicit SpanLog(std::string path);  // empty: sums only
  ~SpanLog();
  SpanLog(const SpanLog&) = delete;

  // The span that was open ends now and one of this name begins.
  void next(std::string_view name, int64_t step);
  // Seconds by name since the start, the open span included.
  std::map<std::string, double> totals() const;

 private:
  void write(const std::string& line);
  std::string path_;
  std::FILE* file_ = nullptr;
  int64_t bytes_ = 0;
  double flushed_s_ = 0;
  mutable std::mutex mutex_;
  std::map<std::string, double> totals_;
  std::string open_;
  int64_t open_step_ = -1;
  double open_since_s_ = 0, open_since_unix_s_ = 0;
};

}  // namespace stoker::trace
