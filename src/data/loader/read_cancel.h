// data/loader/read_cancel.h
// Reads that wait for storage may wait for an hour. While a ReadCancel lives on a thread, that thread's reads give up with Cancelled
// once the flag is set, within a tenth of a second: a prefetcher can end, and a team can regroup, while storage is away.
#pragma once
#include <atomic>

namespace stoker::data {

class ReadCancel {
 public:
  explicit ReadCancel(const std::atomic<bool>& flag) : before_(current_) { current_ = &flag; }
  ~ReadCancel() { current_ = before_; }
  ReadCancel(const ReadCancel&) = delete;
  static bool wanted() { return current_ && *current_; }  // on this thread

 private:
  static inline thread_local const std::atomic<bool>* current_ = nullptr;
  const std::atomic<bool>* before_;
};

}  // namespace stoker::data
