// base/progress.h
// A progress bar on stderr for work of known or unknown length. Draws at most 10 times a second, only on a
// terminal; elsewhere one line at the end. Thread-safe: add() from any thread. Quiet when STOKER_PROGRESS=0.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

namespace stoker {

class Progress {
 public:
  // total 0: unknown. unit "B" prints bytes with prefixes, anything else plain numbers.
  Progress(std::string what, uint64_t total, std::string unit = "B");
  ~Progress();  // draws the final line
  Progress(const Progress&) = delete;
  void add(uint64_t amount);
  void set(uint64_t done);

 private:
  void draw(bool last);
  std::string what_, unit_;
  uint64_t total_;
  std::atomic<uint64_t> done_{0};
  double started_s_;
  std::atomic<double> next_draw_s_;
  std::mutex drawing_;
  bool terminal_, quiet_;
};

std::string human_bytes(double bytes);       // "1.50 GB": powers of 1000
std::string human_count(double count);       // "124.4 M"
std::string human_duration(double seconds);  // "3 m 20 s"
std::string human_time(double unix_s);       // "14:03:09", the local clock

}  // namespace stoker
