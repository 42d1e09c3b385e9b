// dash/run_report.h
// One run, shown: report.html in the run directory (self-contained: data, chart code and style inside, no
// network) and the same in a terminal.
//   charts      loss (each step, smoothed, held out), learning rate, gradient norm, tokens/s and MFU, step
//   anatomy
//               when the log has it; against steps, tokens or hours; marks where something happened
//   length      more than 4,000 steps are drawn as means of equal groups, and the page says so
// Reads         RUN/log.jsonl; RUN/recipe.toml is shown when it is there
// Writes        RUN/report.html, whole or not at all
// Errors        Usage: no log there. Data: see run_log.h. Storage: see io/file_system.h
#pragma once
#include <string>

#include "dash/run_log.h"
#include "io/file_system.h"

namespace stoker::dash {

struct RunSummary {
  int64_t steps = 0;
  double first_loss, last_loss;  // mean of the first and last twentieth of the steps, at least one
  double best_eval_loss, best_bits_per_byte;
  int64_t best_eval_step = 0;
  double tokens, median_tokens_per_s, median_mfu, time_s;
};

RunLog read_run_log(io::FileSystem& fs, const std::string& run_directory);
RunSummary summarize(const RunLog& log);
std::string report_html(const RunLog& log, const std::string& title, const std::string& recipe);
std::string report_terminal(const RunLog& log, const std::string& title, int columns);
// Returns the path of the page.
std::string write_run_report(io::FileSystem& fs, const std::string& run_directory);

}  // namespace stoker::dash
