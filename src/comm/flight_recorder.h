// comm/flight_recorder.h
// The last collectives of one rank, and where it is: what a supervisor reads after (or while) a rank is
// silent. The record lives in memory or in a mapped file; the file can be read after kill -9 and while its
// owner is stopped. Cost         two stores of 64 bytes per collective, no system call Threads      one
// writer; any number of readers, who may see an entry half written (it is then marked as running) Errors
// reading a foreign file: Data, never a crash
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::comm {

enum class CallState : uint32_t { kRunning = 1, kDone = 2, kFailed = 3 };

struct CallRecord {
  uint64_t sequence = 0;
  uint64_t bytes = 0;
  double started_s = 0;  // unix time
  double took_s = 0;
  CallState state = CallState::kRunning;
  int32_t waiting_on = -1;  // rank; on failure the rank held responsible
  std::array<char, 16> name{};
  std::string_view call() const;
  bool is_collective() const;  // all ranks of a group call it, so its number says the same on each
};

struct FlightRecord {
  int64_t pid = 0;
  int32_t rank = -1;
  uint64_t generation = 0;
  int64_t step = -1;
  std::string phase;  // "forward", "data", ...
  double phase_since_s = 0;
  std::vector<CallRecord> calls;  // oldest first
};

// "in all_reduce #412 (25 MB), waiting on rank 3 for 2.1 s" or "after all_reduce #411"
std::string last_call(const FlightRecord& record, double now_unix_s);

FlightRecord read_flight_record(const std::string& path);
FlightRecord parse_flight_record(const void* data, size_t bytes);

class FlightRecorder {
 public:
  static constexpr size_t kCalls = 128;
  FlightRecorder();                                  // in memory
  explicit FlightRecorder(const std::string& path);  // in a file, created or truncated; Storage errors
  ~FlightRecorder();
  FlightRecorder(const FlightRecorder&) = delete;

  void place(int rank, uint64_t generation);
  void phase(std::string_view name, int64_t step);
  void begin(uint64_t sequence, std::string_view name, uint64_t bytes);
  void waiting_on(int rank);
  void end(CallState state, int culprit = -1);
  FlightRecord snapshot() const;
  std::span<const std::byte> bytes() const;  // as in the file

 private:
  friend FlightRecord parse_flight_record(const void* data, size_t bytes);
  struct Layout;
  Layout* layout_;
  bool mapped_;
};

}  // namespace stoker::comm
