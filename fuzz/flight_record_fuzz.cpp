// A flight record of a process that died in the middle of a write, of another version, or made up.
#include <cstring>
#include <string>

#include "base/error.h"
#include "comm/flight_recorder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker::comm;
  // A whole record with the input laid over it: the right size by chance would hardly ever come.
  static const std::string whole = [] {
    FlightRecorder recorder;
    for (uint64_t i = 0; i < 200; ++i) recorder.begin(i, "all_gather", i), recorder.end(CallState::kDone);
    return std::string(reinterpret_cast<const char*>(recorder.bytes().data()), recorder.bytes().size());
  }();
  std::string bytes = whole;
  std::memcpy(bytes.data(), data, std::min(size, bytes.size()));
  for (const auto& [p, n] : {std::pair{reinterpret_cast<const void*>(data), size},
                             {static_cast<const void*>(bytes.data()), bytes.size()}})
    try {
      const FlightRecord record = parse_flight_record(p, n);
      STOKER_CHECK(record.calls.size() <= FlightRecorder::kCalls);
      (void)last_call(record, 1e9);
    } catch (const stoker::Error& e) {
      if (e.kind() != stoker::ErrorKind::kData) throw;
    }
  return 0;
}
