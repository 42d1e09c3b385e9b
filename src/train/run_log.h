// train/run_log.h
// The run's log: log.jsonl in the run directory, one JSON object a line, flushed at every line (docs/formats/run-log.md).
// Events    start, resume, step, eval, checkpoint, skip, rollback, warning, stop, end
// A torn last line (the process was killed while writing) is cut off when the log is opened again.
// Errors    a full disk ends neither the log nor the run: lines are dropped and counted, and the next that fits says how many
#pragma once
#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace stoker::train {

class RunLog {
 public:
  explicit RunLog(const std::string& path);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  void write(const nlohmann::json& event);

 private:
  std::FILE* file_ = nullptr;
  uint64_t dropped_ = 0;
};

}  // namespace stoker::train
