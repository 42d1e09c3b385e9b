#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/json_number.h"
#include "dash/run_report.h"

namespace stoker::cli {
namespace {

int terminal_columns() {
  winsize size{};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 84;
}

nlohmann::json to_json(const dash::RunSummary& s, const dash::RunLog& log, const std::string& page) {
  return {{"report", page},
          {"steps", s.steps},
          {"first_loss", number_or_null(s.first_loss)},
          {"last_loss", number_or_null(s.last_loss)},
          {"best_eval_loss", number_or_null(s.best_eval_loss)},
          {"best_bits_per_byte", number_or_null(s.best_bits_per_byte)},
          {"best_eval_step", s.best_eval_step},
          {"tokens", number_or_null(s.tokens)},
          {"median_tokens_per_s", number_or_null(s.median_tokens_per_s)},
          {"median_mfu", number_or_null(s.median_mfu)},
          {"time_s", number_or_null(s.time_s)},
          {"events", log.marks.size()},
          {"rewinds", log.rewinds}};
}

struct ReportOptions {
  std::string run;
  int columns = 0;
  bool json = false;
};

}  // namespace

void add_report(Command& app) {
  auto* cmd = app.add_subcommand("report", "Show a run: loss curve here, charts in RUN/report.html");
  auto options = std::make_shared<ReportOptions>();
  cmd->add_option("run", options->run, "Run directory (holds log.jsonl)")->required()->type_name("RUN");
  cmd->add_option("--columns", options->columns, "Width of the plot (default: the terminal's)")
      ->range(32, 400);
  cmd->add_flag("--json", options->json, "Print JSON (docs/json.md)");
  cmd->footer("Examples:\n  stoker report runs/demo\n  stoker report runs/demo --json");
  cmd->callback([options] {
    io::FileSystem& fs = io::real_file_system();
    const std::string page = dash::write_run_report(fs, options->run);
    const dash::RunLog log = dash::read_run_log(fs, options->run);
    if (options->json) {
      fmt::print("{}\n", to_json(dash::summarize(log), log, page).dump(2));
      return;
    }
    fmt::print(
        "{}\n  charts: {}\n",
        dash::report_terminal(log, options->run, options->columns ? options->columns : terminal_columns()),
        page);
  });
}

}  // namespace stoker::cli
