#include "data/loader/prefetcher.h"

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/error.h"
#include "data/loader/read_cancel.h"

namespace stoker::data {

Prefetcher::Prefetcher(const SampleSource& loader, std::function<SampleRange(uint64_t)> plan, uint64_t first,
                       size_t depth)
    : loader_(loader),
      plan_(std::move(plan)),
      depth_(std::max<size_t>(1, depth)),
      position_(first),
      to_fill_(first),
      thread_([this] { work(); }) {}

Prefetcher::Prefetcher(const SampleSource& loader, int64_t rows, uint64_t first, size_t depth)
    : Prefetcher(
          loader,
          [rows](uint64_t i) {
            return SampleRange{i * static_cast<uint64_t>(rows), rows};
          },
          first, depth) {}

Prefetcher::~Prefetcher() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  give_up_ = true;
  wake_worker_.notify_all();
  thread_.join();
}

void Prefetcher::work() {
  const ReadCancel cancel(give_up_);
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_worker_.wait(lock, [&] { return stop_ || (!failed_ && ready_.size() < depth_); });
    if (stop_) return;
    Filled filled{generation_, {}, nullptr};
    const uint64_t index = to_fill_++;
    if (index < hinted_ && hinted_ - index > depth_ + 1) hinted_ = index;  // somebody sought backwards
    if (!spare_.empty()) {
      filled.batch = std::move(spare_.back());
      spare_.pop_back();
    }
    lock.unlock();
    hint(index);
    try {
      const SampleRange range = plan_(index);
      loader_.fill(range.first_sample, range.rows, filled.batch);
    } catch (...) {
      filled.failure = std::current_exception();
    }
    lock.lock();
    if (filled.generation != generation_) {  // somebody sought meanwhile
      spare_.push_back(std::move(filled.batch));
      continue;
    }
    failed_ = filled.failure != nullptr;
    ready_.push_back(std::move(filled));
    wake_trainer_.notify_one();
  }
}

// Tells a slow store what comes after the batch at hand, so that it fetches while this one is filled. Only a
// hint: whatever goes wrong here will go wrong again, with an answer, when the batch is filled.
void Prefetcher::hint(uint64_t index) {
  try {
    for (hinted_ = std::max(hinted_, index); hinted_ <= index + depth_; ++hinted_) {
      const SampleRange range = plan_(hinted_);
      loader_.will_fill(range.first_sample, range.rows);
    }
  } catch (...) {
  }
}

bool Prefetcher::ready(double within_s) {
  std::unique_lock lock(mutex_);
  if (!ready_.empty()) return true;
  const double began = monotonic_s();
  const bool there =
      wake_trainer_.wait_for(lock, std::chrono::duration<double>(within_s), [&] { return !ready_.empty(); });
  wait_s_ += monotonic_s() - began;
  return there;
}

void Prefetcher::next(Batch& batch) {
  std::unique_lock lock(mutex_);
  if (ready_.empty()) {
    const double began = monotonic_s();
    wake_trainer_.wait(lock, [&] { return !ready_.empty(); });
    wait_s_ += monotonic_s() - began;
  }
  if (ready_.front().failure) std::rethrow_exception(ready_.front().failure);
  std::swap(batch, ready_.front().batch);
  if (spare_.size() <= depth_) spare_.push_back(std::move(ready_.front().batch));
  ready_.pop_front();
  ++position_;
  wake_worker_.notify_one();
}

void Prefetcher::seek(uint64_t index) {
  std::lock_guard lock(mutex_);
  for (auto& filled : ready_) spare_.push_back(std::move(filled.batch));
  ready_.clear();
  ++generation_;
  failed_ = false;
  position_ = to_fill_ = index;
  wake_worker_.notify_one();
}

}  // namespace stoker::data
