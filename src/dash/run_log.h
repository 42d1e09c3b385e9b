// dash/run_log.h
// What a run wrote into log.jsonl, as columns. One JSON object a line; "event" says what it is:
//   step        step, loss, lr, grad_norm, tokens, tokens_per_s, mfu, time_s (all but step optional),
//               anatomy {phase: share or seconds}
//   eval        step, loss, bits_per_byte
//   start       model, parameters, tokens_per_step, ... : shown as it is
//   any other   checkpoint, spike, skip, rollback, resume, ...: a mark at its step
// Resumes     a run that was killed writes some steps twice: the later ones count, and the number of rewinds
//             is kept
// Errors      Data: a line in the middle is no JSON object, or the log has no step. A torn last line is
//             normal (the run was killed while writing it) and is dropped
// Numbers     a value that is absent is NaN in its column
#pragma once
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace stoker::dash {

inline constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();

struct StepPoint {
  int64_t step = 0;
  double loss, lr, grad_norm, tokens, tokens_per_s, mfu, time_s;
};

struct EvalPoint {
  int64_t step = 0;
  double loss, bits_per_byte;
};

struct Mark {
  int64_t step = 0;
  std::string event;
  std::string text;  // the rest of the line, "key value, key value"
};

struct RunLog {
  std::vector<StepPoint> steps;
  std::vector<EvalPoint> evals;
  std::vector<Mark> marks;
  std::vector<std::pair<std::string, std::string>> facts;  // of the last start line
  std::map<std::string, std::vector<double>> anatomy;      // phase -> one value per step
  int rewinds = 0;
};

// `name` is what messages call the log.
RunLog parse_run_log(std::string_view text, const std::string& name);

}  // namespace stoker::dash
