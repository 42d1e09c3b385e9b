// The first byte chooses one of the JSON files of a checkpoint, the rest is its text: a Data error, or a
// record that says the same when it is written and read again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "checkpoint/record.h"
#include "checkpoint/training_state.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  using namespace stoker::checkpoint;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0]) {
      case 'i': {
        const std::string once = to_json(parse_index(text, "fuzz"));
        STOKER_CHECK(to_json(parse_index(once, "again")) == once);
        break;
      }
      case 'c':
        STOKER_CHECK(to_json(parse_commit(text, "fuzz")) == text);
        break;
      case 's': {
        const TrainingState state = parse_training_state(text, "fuzz");
        STOKER_CHECK(parse_training_state(to_json(state), "again") == state);
        break;
      }
      default: {
        const std::string once = to_json(parse_replay_record(text, "fuzz"));
        STOKER_CHECK(to_json(parse_replay_record(once, "again")) == once);
      }
    }
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
