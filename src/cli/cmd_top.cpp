#include <unistd.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/progress.h"
#include "base/stop.h"
#include "cli/command.h"
#include "cli/run_files.h"
#include "elastic/worker_link.h"

namespace stoker::cli {
namespace {

using Json = nlohmann::json;
constexpr size_t kEventLines = 12;

std::string cut(const std::string& text, size_t width) {
  return text.size() <= width ? text : text.substr(0, width > 3 ? width - 3 : 0) + "...";
}

double sum(const Json& parts) {
  double total = 0;
  for (const auto& [name, seconds] : parts.items()) total += seconds.get<double>();
  return total;
}

// "name 61.2 %" for each part, largest first.
std::string shares(const Json& parts) {
  std::vector<std::pair<double, std::string>> sorted;
  for (const auto& [name, seconds] : parts.items()) sorted.emplace_back(-seconds.get<double>(), name);
  std::sort(sorted.begin(), sorted.end());
  const double total = sum(parts);
  std::string out;
  for (const auto& [minus, name] : sorted)
    if (total > 0 && -minus / total >= 0.0005)
      out += fmt::format("{}{} {:.1f} %", out.empty() ? "" : ", ", name, -minus / total * 100);
  return out;
}

// Useful is what workers of a whole team spend computing and updating.
std::string goodput(const Json& status) {
  Json anatomy = Json::object();
  for (const Json& w : status["workers"])
    if (w["life"] == "member" && w["anatomy_s"].is_object())
      for (const auto& [name, seconds] : w["anatomy_s"].items())
        if (name != "start-up" && name != "regroup" && name != "recover")
          anatomy[name] = anatomy.value(name, 0.0) + seconds.get<double>();
  const Json& account = status["account_s"];
  const double wall = sum(account), inside = sum(anatomy);
  if (wall <= 0 || inside <= 0) return "";
  const double useful = (anatomy.value("compute", 0.0) + anatomy.value("update", 0.0)) / inside;
  const double training = account.value("training", 0.0) / wall;
  return fmt::format("goodput {:.1f} % of {}   {}\nsteps   {}\n\n", training * useful * 100,
                     human_duration(wall), shares(account), shares(anatomy));
}

// Who is in the run or wants to be; those without a rank last.
std::vector<const Json*> by_rank(const Json& workers) {
  std::vector<const Json*> out;
  for (const Json& w : workers)
    if (w["life"] != "left" && w["life"] != "fenced") out.push_back(&w);
  const auto rank = [](const Json* w) { return static_cast<uint32_t>((*w)["rank"].get<int>()); };
  std::stable_sort(out.begin(), out.end(), [&](const Json* a, const Json* b) { return rank(a) < rank(b); });
  return out;
}

std::string page(const Json& status, const std::deque<Json>& events) {
  std::string out =
      fmt::format("run {}   generation {}{}   workers wanted {}\n\n", status["run"].get<std::string>(),
                  status["generation"].get<uint64_t>(), status["broken"].get<bool>() ? " (regrouping)" : "",
                  status["target"].get<int>());
  out += goodput(status);
  out += fmt::format("{:>4} {:<18} {:<16} {:>8} {:<10} {:>8} {:<12} {:>8}  {}\n", "rank", "worker", "host",
                     "pid", "state", "step", "phase", "s/v.rank", "last collective");
  for (const Json* worker : by_rank(status["workers"])) {
    const Json& w = *worker;
    const auto number = [](int64_t n) { return n < 0 ? std::string("-") : std::to_string(n); };
    const std::string life = w["life"];
    out += fmt::format("{:>4} {:<18} {:<16} {:>8} {:<10} ", number(w["rank"]), cut(w["worker"], 18),
                       cut(w["host"], 16), w["pid"].get<int64_t>(),
                       w["slow"].get<bool>()             ? "slow"
                       : w["silent_s"].get<double>() > 1 ? "silent"
                                                         : life);
    if (w["rank"] < 0) out += fmt::format("{:>8} waits for a place\n", "-");
    else
      out += fmt::format("{:>8} {:<12} {:>8.3f}  {}\n", number(w["step"]), cut(w["phase"], 12),
                         w["compute_s_per_leaf"].get<double>(), cut(w["last_call"], 60));
  }
  out += "\nevents\n";
  for (const Json& e : events)
    out += fmt::format("  {} {:<9} {}\n", human_time(e["unix_s"]), e["kind"].get<std::string>(),
                       cut(e["text"], 150));
  return out;
}

struct TopFlags {
  std::string run;
  bool once = false, as_json = false;
  double every_s = 1;
};

void top(const TopFlags& flags) {
  RunLine line(flags.run);
  std::deque<Json> events;
  int64_t seen = 0;
  const bool once = flags.once || flags.as_json || isatty(STDOUT_FILENO) == 0;
  while (!stop_requested()) {
    const Json status = Json::parse(line.ask([&](auto& client) { return client.status(seen); }));
    for (const Json& e : status["events"]) {
      seen = e["number"];
      events.push_back(e);
      if (events.size() > kEventLines) events.pop_front();
    }
    if (flags.as_json) return fmt::print("{}\n", status.dump(2));
    if (!once) fmt::print("\033[H\033[2J");
    fmt::print("{}", page(status, events));
    std::fflush(stdout);
    if (once) return;
    std::this_thread::sleep_for(std::chrono::duration<double>(flags.every_s));
  }
}

}  // namespace

void add_top(Command& app) {
  auto* cmd = app.add_subcommand("top", "Watch the workers of a running run");
  auto flags = std::make_shared<TopFlags>();
  cmd->add_option("run", flags->run, "Run directory")->required();
  cmd->add_option("--every", flags->every_s, "Seconds between looks (default 1)")->range(0.1, 3600.0);
  cmd->add_flag("--once", flags->once, "Print one page and end (also when the output is no terminal)");
  cmd->add_flag("--json", flags->as_json, "Print JSON (docs/json.md)");
  cmd->footer("Example: stoker top run");
  cmd->callback([flags] { top(*flags); });
}

}  // namespace stoker::cli
