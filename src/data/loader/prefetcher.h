// data/loader/prefetcher.h
// Fills batches ahead of the trainer on one thread of its own: batch i is loader.fill(plan(i)), handed out in order.
// Memory   depth + 1 batches; their vectors are reused
// Cost     next() moves a batch out: O(1) when it is ready; what it waited is counted. seek() is O(1) plus the batch that is
//          being filled
// Errors   what fill() throws, next() rethrows for the batch it belongs to; after that every next() does
// Threads  next, seek and wait_s from one thread
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "data/loader/batch.h"

namespace stoker::data {

struct SampleRange {
  uint64_t first_sample = 0;
  int64_t rows = 0;
};

class Prefetcher {
 public:
  // plan: pure, called on the prefetch thread. The loader must outlive this object.
  Prefetcher(const SampleSource& loader, std::function<SampleRange(uint64_t)> plan, uint64_t first = 0,
             size_t depth = 4);
  // Batch i holds samples i * rows .. (i + 1) * rows - 1.
  Prefetcher(const SampleSource& loader, int64_t rows, uint64_t first = 0, size_t depth = 4);
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;

  bool ready(double within_s);  // whether next() will not wait; waits so long for that
  void next(Batch& batch);    // swaps the next batch in; give it back the one before and nothing is allocated
  void seek(uint64_t index);  // the next next() gives batch `index`
  uint64_t position() const { return position_; }  // what next() will give
  double wait_s() const { return wait_s_; }        // all that next() ever waited

 private:
  void work();
  void hint(uint64_t index);
  struct Filled {
    uint64_t generation;
    Batch batch;
    std::exception_ptr failure;
  };
  const SampleSource& loader_;
  std::function<SampleRange(uint64_t)> plan_;
  size_t depth_;
  uint64_t position_;
  double wait_s_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_worker_, wake_trainer_;
  std::deque<Filled> ready_;
  std::vector<Batch> spare_;
  uint64_t to_fill_, generation_ = 0;
  uint64_t hinted_ = 0;  // the worker's own
  bool stop_ = false, failed_ = false;
  std::atomic<bool> give_up_{false};  // a read that waits for storage ends with this object
  std::thread thread_;
};

}  // namespace stoker::data
