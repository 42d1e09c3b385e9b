// checkpoint/training_state.h
// What a run needs beside its tensors to go on exactly, as state.json. Numbers that must come back to the bit (losses, seeds)
// are whole numbers or hexadecimal floats.
// Errors  Data: names the field
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "base/hash.h"

namespace stoker::checkpoint {

struct TrainingState {
  int64_t step = 0;         // optimizer steps done
  uint64_t next_batch = 0;  // the loader's position: the batch that step + 1 reads
  uint64_t tokens_seen = 0;
  std::string manifest_hash;  // version of the dataset; another one is refused
  uint64_t seed = 0;
  std::string recipe;          // text, with overrides applied
  Hash128 recipe_hash;         // of what must not change over a resume; the trainer says what that is
  std::string model_config;    // config.json of Hugging Face
  std::string software;        // "stoker 0.1.0"
  std::string trainer = "{}";  // JSON object: whatever else the trainer keeps (schedule, skipped steps, ...)
  bool operator==(const TrainingState&) const = default;
};
std::string to_json(const TrainingState& state);
TrainingState parse_training_state(std::string_view text, const std::string& where);

// What step `step` gave, recorded beside the checkpoint it started from when it is done. A resume runs that
// step again and compares.
struct ReplayRecord {
  int64_t step = 0;
  double loss = 0, gradient_norm = 0;
  std::optional<Hash128> weights_hash;  // after the step, when the trainer pays for it
  bool operator==(const ReplayRecord&) const = default;
};
std::string to_json(const ReplayRecord& record);  // carries a hash of itself
ReplayRecord parse_replay_record(std::string_view text, const std::string& where);

}  // namespace stoker::checkpoint
