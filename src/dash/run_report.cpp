#include "dash/run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

#include "base/embedded_file.h"
#include "base/error.h"
#include "base/median.h"
#include "base/progress.h"
#include "dash/terminal_plot.h"
#include "io/atomic_write.h"

namespace stoker::embedded {
std::span<const EmbeddedFile> chart_code();
std::span<const EmbeddedFile> pages();
}  // namespace stoker::embedded

namespace stoker::dash {
namespace {

using nlohmann::json;
constexpr size_t kMostPoints = 4000;
constexpr size_t kMostMarks = 200;

std::string_view embedded_file(std::span<const EmbeddedFile> files, std::string_view name) {
  for (const EmbeddedFile& file : files)
    if (file.name == name) return file.content;
  fail(ErrorKind::kInternal, "{} was not built into this program", name);
}

double mean(std::span<const double> values) {
  double sum = 0;
  size_t n = 0;
  for (const double v : values)
    if (std::isfinite(v)) sum += v, ++n;
  return n ? sum / static_cast<double>(n) : kAbsent;
}

std::vector<double> column(const RunLog& log, double StepPoint::*field) {
  std::vector<double> values;
  values.reserve(log.steps.size());
  for (const StepPoint& point : log.steps) values.push_back(point.*field);
  return values;
}

// Means of equal groups, at most kMostPoints of them.
std::vector<double> thinned(const std::vector<double>& values) {
  const size_t groups = std::min(values.size(), kMostPoints);
  std::vector<double> means;
  for (size_t g = 0; g < groups; ++g) {
    const size_t begin = values.size() * g / groups, end = values.size() * (g + 1) / groups;
    means.push_back(end - begin == 1 ? values[begin] : mean(std::span(values).subspan(begin, end - begin)));
  }
  return means;
}

json numbers_or_null(const std::vector<double>& values) {
  json array = json::array();
  for (const double v : values) {
    if (std::isfinite(v))
      array.push_back(std::stod(fmt::format("{:.6g}", v)));  // six digits draw the same and halve the page
    else array.push_back(nullptr);
  }
  return array;
}

// Running sums of what each step took; a column the log does not have stays absent.
std::vector<double> running_hours(const RunLog& log) {
  double seconds = 0;
  std::vector<double> hours;
  for (const StepPoint& point : log.steps) {
    seconds += point.time_s;  // NaN spreads: a gap makes all later positions unknown
    hours.push_back(seconds / 3600);
  }
  return hours;
}

// "tokens" of a step line counts the whole run when it grows from step to step, and that step alone
// otherwise.
std::vector<double> running_tokens(const RunLog& log) {
  std::vector<double> tokens = column(log, &StepPoint::tokens);
  const bool cumulative =
      tokens.size() > 1 && std::adjacent_find(tokens.begin(), tokens.end(),
                                              [](double a, double b) { return !(a < b); }) == tokens.end();
  if (cumulative) return tokens;
  double sum = 0;
  for (double& t : tokens) t = sum += t;
  return tokens;
}

std::string shown(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : "-";
}

using Numbers = std::vector<std::pair<std::string, std::string>>;

Numbers numbers_of(const RunSummary& s) {
  Numbers numbers{{"steps", std::to_string(s.steps)},
                  {"loss at the end", shown(s.last_loss, 4)},
                  {"best held-out loss", shown(s.best_eval_loss, 4)},
                  {"held-out bits per byte", shown(s.best_bits_per_byte, 4)}};
  if (std::isfinite(s.tokens)) numbers.emplace_back("tokens", human_count(s.tokens));
  if (std::isfinite(s.median_tokens_per_s))
    numbers.emplace_back("tokens/s, median", fmt::format("{:.0f}", s.median_tokens_per_s));
  if (std::isfinite(s.median_mfu))
    numbers.emplace_back("MFU, median", fmt::format("{:.1f} %", 100 * s.median_mfu));
  if (std::isfinite(s.time_s)) numbers.emplace_back("time in steps", human_duration(s.time_s));
  return numbers;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// Inside <script>, only "<" can end or nest the element; JSON may spell it as an escape.
std::string script_safe(const json& value) {
  std::string out;
  for (const char c : value.dump(-1, ' ', false, json::error_handler_t::replace)) {
    if (c == '<') out += "\\u003c";
    else out += c;
  }
  return out;
}

// Replaces each @NAME@ of the page once, left to right, so that inserted text is never searched.
std::string fill(std::string_view page,
                 const std::vector<std::pair<std::string_view, std::string_view>>& parts) {
  std::string out;
  for (const auto& [name, text] : parts) {
    const size_t at = page.find(name);
    STOKER_CHECK(at != std::string_view::npos, "{} is not in the page, or out of order", name);
    out += page.substr(0, at);
    out += text;
    page.remove_prefix(at + name.size());
  }
  return out += page;
}

}  // namespace

RunLog read_run_log(io::FileSystem& fs, const std::string& run_directory) {
  const std::string path = io::join(run_directory, "log.jsonl");
  if (!fs.exists(path))
    fail(ErrorKind::kUsage,
         "expected a run directory with log.jsonl, found no {}. Give the directory that the run writes to.",
         path);
  return parse_run_log(fs.open_read(path, io::Access::kSequential)->text(), path);
}

RunSummary summarize(const RunLog& log) {
  STOKER_CHECK(!log.steps.empty());
  const std::vector<double> loss = column(log, &StepPoint::loss);
  const size_t part = std::max<size_t>(1, loss.size() / 20);
  RunSummary s{};
  s.steps = log.steps.back().step;
  s.first_loss = mean(std::span(loss).first(part));
  s.last_loss = mean(std::span(loss).last(part));
  s.best_eval_loss = s.best_bits_per_byte = kAbsent;
  for (const EvalPoint& point : log.evals) {
    if (!(point.loss >= s.best_eval_loss) && std::isfinite(point.loss))
      s.best_eval_loss = point.loss, s.best_eval_step = point.step;
    if (!(point.bits_per_byte >= s.best_bits_per_byte) && std::isfinite(point.bits_per_byte))
      s.best_bits_per_byte = point.bits_per_byte;
  }
  s.tokens = running_tokens(log).back();
  s.median_tokens_per_s = median(column(log, &StepPoint::tokens_per_s));
  s.median_mfu = median(column(log, &StepPoint::mfu));
  s.time_s = running_hours(log).back() * 3600;
  return s;
}

std::string report_html(const RunLog& log, const std::string& title, const std::string& recipe) {
  const RunSummary summary = summarize(log);
  std::vector<double> step_numbers;
  for (const StepPoint& point : log.steps) step_numbers.push_back(static_cast<double>(point.step));
  json data;
  data["title"] = title;
  data["note"] = log.steps.size() > kMostPoints ? fmt::format("{} steps, drawn as means of {} equal groups.",
                                                              log.steps.size(), kMostPoints)
                                                : fmt::format("{} steps, each drawn.", log.steps.size());
  if (log.rewinds)
    data["note"] =
        fmt::format("{} The run was resumed and repeated steps {} times; the repeated ones are shown.",
                    data["note"].get<std::string>(), log.rewinds);
  data["numbers"] = numbers_of(summary);
  data["steps"] = {{"step", numbers_or_null(thinned(step_numbers))},
                   {"tokens", numbers_or_null(thinned(running_tokens(log)))},
                   {"hours", numbers_or_null(thinned(running_hours(log)))},
                   {"loss", numbers_or_null(thinned(column(log, &StepPoint::loss)))},
                   {"lr", numbers_or_null(thinned(column(log, &StepPoint::lr)))},
                   {"grad_norm", numbers_or_null(thinned(column(log, &StepPoint::grad_norm)))},
                   {"tokens_per_s", numbers_or_null(thinned(column(log, &StepPoint::tokens_per_s)))},
                   {"mfu", numbers_or_null(thinned(column(log, &StepPoint::mfu)))}};
  data["evals"] = {{"step", json::array()}, {"loss", json::array()}, {"bits_per_byte", json::array()}};
  for (const EvalPoint& point : log.evals) {
    data["evals"]["step"].push_back(point.step);
    data["evals"]["loss"].push_back(std::isfinite(point.loss) ? json(point.loss) : json());
    data["evals"]["bits_per_byte"].push_back(std::isfinite(point.bits_per_byte) ? json(point.bits_per_byte)
                                                                                : json());
  }
  data["anatomy"] = json::object();
  for (const auto& [phase, values] : log.anatomy) data["anatomy"][phase] = numbers_or_null(thinned(values));
  data["marks"] = json::array();
  for (size_t i = log.marks.size() - std::min(log.marks.size(), kMostMarks); i < log.marks.size(); ++i)
    data["marks"].push_back(
        {fmt::format("step {}", log.marks[i].step), log.marks[i].event, log.marks[i].text});
  data["facts"] = log.facts;
  data["recipe"] = recipe;
  const auto chart = embedded::chart_code();
  const std::string safe_title = escaped(title), safe_data = script_safe(data);
  return fill(embedded_file(embedded::pages(), "run_report.html"),
              {{"@TITLE@", safe_title},
               {"@CHART_STYLE@", embedded_file(chart, "dygraph.min.css")},
               {"@CHART_CODE@", embedded_file(chart, "dygraph.min.js")},
               {"@DATA@", safe_data}});
}

std::string report_terminal(const RunLog& log, const std::string& title, int columns) {
  PlotSeries train{"train", {}, {}, false}, held_out{"held out", {}, {}, true};
  for (const StepPoint& point : log.steps) {
    train.x.push_back(static_cast<double>(point.step));
    train.y.push_back(point.loss);
  }
  for (const EvalPoint& point : log.evals) {
    held_out.x.push_back(static_cast<double>(point.step));
    held_out.y.push_back(point.loss);
  }
  PlotFrame frame;
  frame.columns = std::clamp(columns - 12, 20, 200);
  frame.title = fmt::format("{}: loss{}", title, log.evals.empty() ? "" : " (o: held out)");
  frame.x_label = "steps";
  std::string text = plot_terminal({train, held_out}, frame) + '\n';
  for (const auto& [name, value] : numbers_of(summarize(log)))
    text += fmt::format("  {:<24} {}\n", name, value);
  return text;
}

std::string write_run_report(io::FileSystem& fs, const std::string& run_directory) {
  const RunLog log = read_run_log(fs, run_directory);
  const std::string recipe_path = io::join(run_directory, "recipe.toml");
  const std::string recipe = fs.exists(recipe_path) ? io::read_text(fs, recipe_path) : std::string();
  // "." and "runs/demo/" have a last part too
  std::filesystem::path directory = std::filesystem::absolute(run_directory).lexically_normal();
  if (!directory.has_filename()) directory = directory.parent_path();
  const std::string page = io::join(run_directory, "report.html");
  io::write_file_atomic(fs, page, report_html(log, directory.filename().string(), recipe));
  return page;
}

}  // namespace stoker::dash
