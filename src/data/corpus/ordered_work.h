// data/corpus/ordered_work.h
// A pipeline with many workers and one order: take() hands out items one after another, work() runs on any thread, done() gets the
// results in the order the items were taken.
// Memory       at most 4 items per thread are on the way
// Errors       whatever take, work or done throws ends the pipeline; the first in item order is rethrown
// Stop         Cancelled once stop_requested()
// Determinism  done() sees the same sequence for any number of threads
#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/stop.h"

namespace stoker::corpus {

template <typename Item, typename Output>
class OrderedWork {
 public:
  template <typename Take, typename Work, typename Done>
  static void run(int threads, Take&& take, Work&& work, Done&& done) {
    OrderedWork pipeline(threads);
    std::vector<std::thread> team;
    for (int i = 0; i < threads; ++i) team.emplace_back([&] { pipeline.loop(take, work, done); });
    for (auto& t : team) t.join();
    if (pipeline.failure_) std::rethrow_exception(pipeline.failure_);
  }

 private:
  struct Slot {
    std::optional<Output> output;
    std::exception_ptr failure;
  };
  explicit OrderedWork(int threads) : most_ahead_(4 * static_cast<uint64_t>(threads)) {}

  template <typename Take, typename Work, typename Done>
  void loop(Take& take, Work& work, Done& done) {
    for (;;) {
      std::optional<Item> item;
      uint64_t number;
      {
        std::lock_guard taking(take_mutex_);  // taken in order, by one at a time
        {
          std::unique_lock lock(mutex_);
          room_.wait(lock, [&] { return ended_ || taken_ - finished_ < most_ahead_; });
          if (ended_) return;
          number = taken_++;
        }
        Slot slot;
        try {
          if (stop_requested()) fail(ErrorKind::kCancelled, "stopped on request; nothing was written");
          item = take();
        } catch (...) {
          slot.failure = std::current_exception();
        }
        if (!item) {
          std::lock_guard lock(mutex_);
          if (!slot.failure) {
            --taken_;
            ended_ = true;
            room_.notify_all();
            return;
          }
          finish(number, std::move(slot), done);
          return;
        }
      }
      Slot slot;
      try {
        slot.output.emplace(work(std::move(*item)));
      } catch (...) {
        slot.failure = std::current_exception();
      }
      std::lock_guard lock(mutex_);
      finish(number, std::move(slot), done);
    }
  }

  template <typename Done>
  void finish(uint64_t number, Slot slot, Done& done) {  // mutex_ held
    waiting_.emplace(number, std::move(slot));
    while (!failure_ && !waiting_.empty() && waiting_.begin()->first == finished_) {
      Slot ready = std::move(waiting_.begin()->second);
      waiting_.erase(waiting_.begin());
      ++finished_;
      if (!ready.failure) {
        try {
          done(std::move(*ready.output));
        } catch (...) {
          ready.failure = std::current_exception();
        }
      }
      if (ready.failure) {
        failure_ = ready.failure;
        ended_ = true;
      }
    }
    room_.notify_all();
  }

  const uint64_t most_ahead_;
  std::mutex take_mutex_, mutex_;
  std::condition_variable room_;
  std::map<uint64_t, Slot> waiting_;
  uint64_t taken_ = 0, finished_ = 0;
  bool ended_ = false;
  std::exception_ptr failure_;
};

// work(i) for i < count on any thread, done() with the results in order.
template <typename Output, typename Work, typename Done>
void for_each_in_order(int threads, size_t count, Work&& work, Done&& done) {
  size_t next = 0;
  OrderedWork<size_t, Output>::run(
      threads, [&]() -> std::optional<size_t> { return next < count ? std::optional(next++) : std::nullopt; },
      work, done);
}

}  // namespace stoker::corpus
