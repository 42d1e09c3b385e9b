#include "dash/run_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace stoker::dash {
namespace {

using nlohmann::json;

double number(const json& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_number() ? found->get<double>() : kAbsent;
}

int64_t step_of(const json& line, int64_t otherwise) {
  const auto found = line.find("step");
  return found != line.end() && found->is_number_integer() ? found->get<int64_t>() : otherwise;
}

std::string plain(const json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void rewind_to(RunLog& log, int64_t step) {
  const auto later = [step](const auto& point) { return point.step >= step; };
  const size_t kept =
      static_cast<size_t>(std::find_if(log.steps.begin(), log.steps.end(), later) - log.steps.begin());
  log.steps.resize(kept);
  for (auto& [phase, values] : log.anatomy) values.resize(std::min(values.size(), kept));
  std::erase_if(log.evals, later);
  ++log.rewinds;
}

void add_step(RunLog& log, const json& line) {
  const int64_t last = log.steps.empty() ? 0 : log.steps.back().step;
  const int64_t step = step_of(line, last < std::numeric_limits<int64_t>::max() ? last + 1 : last);
  if (!log.steps.empty() && step <= log.steps.back().step) rewind_to(log, step);
  log.steps.push_back({step, number(line, "loss"), number(line, "lr"), number(line, "grad_norm"),
                       number(line, "tokens"), number(line, "tokens_per_s"), number(line, "mfu"),
                       number(line, "time_s")});
  const auto anatomy = line.find("anatomy");
  if (anatomy == line.end() || !anatomy->is_object()) return;
  for (const auto& [phase, value] : anatomy->items()) {
    if (!value.is_number()) continue;
    auto& column = log.anatomy[phase];
    column.resize(log.steps.size(), kAbsent);
    column.back() = value.get<double>();
  }
}

void add_mark(RunLog& log, const json& line, const std::string& event) {
  Mark mark{step_of(line, log.steps.empty() ? 0 : log.steps.back().step), event, {}};
  for (const auto& [key, value] : line.items()) {
    if (key == "event" || key == "step") continue;
    mark.text += fmt::format("{}{} {}", mark.text.empty() ? "" : ", ", key, plain(value));
  }
  log.marks.push_back(std::move(mark));
}

void add_line(RunLog& log, const json& line) {
  const auto found = line.find("event");
  const std::string event = found != line.end() && found->is_string() ? found->get<std::string>() : "unnamed";
  if (event == "step") {
    add_step(log, line);
  } else if (event == "eval") {
    log.evals.push_back({step_of(line, log.steps.empty() ? 0 : log.steps.back().step), number(line, "loss"),
                         number(line, "bits_per_byte")});
  } else if (event == "start") {
    log.facts.clear();
    for (const auto& [key, value] : line.items())
      if (key != "event") log.facts.emplace_back(key, plain(value));
  } else {
    add_mark(log, line, event);
  }
}

}  // namespace

RunLog parse_run_log(std::string_view text, const std::string& name) {
  RunLog log;
  int64_t line_number = 0;
  while (!text.empty()) {
    ++line_number;
    const size_t end = text.find('\n');
    const bool torn = end == std::string_view::npos;
    const std::string_view bytes = text.substr(0, end);
    text.remove_prefix(torn ? text.size() : end + 1);
    if (bytes.empty()) continue;
    const json line = json::parse(bytes, nullptr, /*allow_exceptions=*/false);
    if (line.is_object()) {
      add_line(log, line);
    } else if (!torn) {
      fail(ErrorKind::kData,
           "{}, line {}: expected a JSON object, found '{}'. The log is damaged there: remove the line to "
           "report "
           "the rest.",
           name, line_number, bytes.substr(0, 60));
    }
  }
  if (log.steps.empty())
    fail(ErrorKind::kData, "{}: expected at least one step, found none. Has the run begun?", name);
  for (auto& [phase, values] : log.anatomy) values.resize(log.steps.size(), kAbsent);
  return log;
}

}  // namespace stoker::dash
