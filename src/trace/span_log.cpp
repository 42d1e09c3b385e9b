#include "trace/span_log.h"

#include <fmt/format.h>

#include "base/clock.h"

namespace stoker::trace {
namespace {
constexpr double kFlushEvery_s = 1;
}

SpanLog::SpanLog(std::string path) : path_(std::move(path)) {
  if (path_.empty()) return;
  file_ = std::fopen(path_.c_str(), "ae");
  if (file_ == nullptr) return;
  std::fseek(file_, 0, SEEK_END);
  bytes_ = std::ftell(file_);
}

SpanLog::~SpanLog() {
  next("", -1);
  if (file_ != nullptr) std::fclose(file_);
}

void SpanLog::next(std::string_view name, int64_t step) {
  const double now = monotonic_s();
  std::string line;
  {
    std::lock_guard lock(mutex_);
    if (!open_.empty()) {
      totals_[open_] += now - open_since_s_;
      if (file_ != nullptr)
        line = fmt::format("{{\"name\":\"{}\",\"step\":{},\"start\":{:.6f},\"s\":{:.6f}}}\n", open_,
                           open_step_, open_since_unix_s_, now - open_since_s_);
    }
    open_ = name;
    open_step_ = step;
    open_since_s_ = now;
    open_since_unix_s_ = system_clock().unix_s();
  }
  if (!line.empty()) write(line);
}

void SpanLog::write(const std::string& line) {
  if (bytes_ + static_cast<int64_t>(line.size()) > kMostBytes) {
    std::fclose(file_);
    std::rename(path_.c_str(), (path_ + ".1").c_str());
    file_ = std::fopen(path_.c_str(), "we");
    bytes_ = 0;
    if (file_ == nullptr) return;
  }
  bytes_ += static_cast<int64_t>(line.size());
  std::fwrite(line.data(), 1, line.size(), file_);
  if (const double now = monotonic_s(); now - flushed_s_ > kFlushEvery_s) {
    flushed_s_ = now;
    std::fflush(file_);
  }
}

std::map<std::string, double> SpanLog::totals() const {
  std::lock_guard lock(mutex_);
  auto out = totals_;
  if (!open_.empty()) out[open_] += monotonic_s() - open_since_s_;
  return out;
}

}  // namespace stoker::trace
