#include "trace/chrome.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

namespace stoker::trace {
namespace {
using nlohmann::ordered_json;

int64_t microseconds(double seconds) { return std::llround(seconds * 1e6); }

// Numbers for names in the order in which they come.
class Numbers {
 public:
  int of(const std::string& name) {
    return number_.emplace(name, static_cast<int>(number_.size()) + 1).first->second;
  }
  const std::map<std::string, int>& all() const { return number_; }

 private:
  std::map<std::string, int> number_;
};

}  // namespace

std::vector<ChromeSpan> read_spans(const std::string& path, const std::string& process) {
  std::vector<ChromeSpan> out;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (!j.is_object()) continue;
    const auto name = j.find("name"), start = j.find("start"), seconds = j.find("s");
    if (name == j.end() || start == j.end() || seconds == j.end() || !name->is_string() ||
        !start->is_number() || !seconds->is_number())
      continue;
    out.push_back({process, "phases", *name, *start, *seconds, j.value("step", int64_t{-1}), ""});
  }
  return out;
}

std::string chrome_trace(const std::vector<ChromeSpan>& spans, const std::vector<ChromeInstant>& instants) {
  double origin = std::numeric_limits<double>::infinity();
  for (const ChromeSpan& s : spans) origin = std::min(origin, s.start_unix_s);
  for (const ChromeInstant& i : instants) origin = std::min(origin, i.unix_s);
  Numbers processes;
  std::map<std::string, Numbers> tracks;
  ordered_json events = ordered_json::array();
  for (const ChromeSpan& s : spans) {
    const int pid = processes.of(s.process), tid = tracks[s.process].of(s.track);
    ordered_json args = ordered_json::object();
    if (s.step >= 0) args["step"] = s.step;
    if (!s.text.empty()) args["what"] = s.text;
    events.push_back({{"name", s.name},
                      {"cat", s.track},
                      {"ph", "X"},
                      {"ts", microseconds(s.start_unix_s - origin)},
                      {"dur", std::max<int64_t>(0, microseconds(s.seconds))},
                      {"pid", pid},
                      {"tid", tid},
                      {"args", args}});
  }
  for (const ChromeInstant& i : instants)
    events.push_back({{"name", i.name},
                      {"cat", "event"},
                      {"ph", "i"},
                      {"s", "g"},
                      {"ts", microseconds(i.unix_s - origin)},
                      {"pid", processes.of(i.process)},
                      {"tid", 0},
                      {"args", {{"what", i.text}}}});
  for (const auto& [process, pid] : processes.all()) {
    events.push_back(
        {{"name", "process_name"}, {"ph", "M"}, {"pid", pid}, {"tid", 0}, {"args", {{"name", process}}}});
    for (const auto& [track, tid] : tracks[process].all())
      events.push_back(
          {{"name", "thread_name"}, {"ph", "M"}, {"pid", pid}, {"tid", tid}, {"args", {{"name", track}}}});
  }
  return ordered_json{{"traceEvents", events}, {"displayTimeUnit", "ms"}}.dump() + "\n";
}

}  // namespace stoker::trace
