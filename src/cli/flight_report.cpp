#include "cli/flight_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "comm/flight_recorder.h"
#include "io/atomic_write.h"
#include "io/file_system.h"

namespace stoker::cli {
namespace {

using Json = nlohmann::json;
namespace files = std::filesystem;
constexpr size_t kCallsEach = 16;
constexpr size_t kRowsShown = 12;
constexpr std::string_view kPrefix = "generation-";

const char* state_name(comm::CallState s) {
  return s == comm::CallState::kDone ? "done" : s == comm::CallState::kFailed ? "failed" : "running";
}

Json to_json(const std::string& worker, const comm::FlightRecord& r, double now) {
  Json calls = Json::array();
  for (size_t i = r.calls.size() - std::min(kCallsEach, r.calls.size()); i < r.calls.size(); ++i) {
    const comm::CallRecord& c = r.calls[i];
    calls.push_back(
        {{"sequence", c.sequence},
         {"collective", c.is_collective()},
         {"name", c.call()},
         {"bytes", c.bytes},
         {"state", state_name(c.state)},
         {"waiting_on", c.waiting_on},
         {"seconds", c.state == comm::CallState::kRunning ? std::max(0.0, now - c.started_s) : c.took_s}});
  }
  return {{"worker", worker},
          {"rank", r.rank},
          {"pid", r.pid},
          {"generation", r.generation},
          {"step", r.step},
          {"phase", r.phase},
          {"phase_age_s", std::max(0.0, now - r.phase_since_s)},
          {"last_call", comm::last_call(r, now)},
          {"calls", calls}};
}

// RUN/flight/generation-N.json by N.
std::map<uint64_t, files::path> failures(const std::string& run_dir) {
  std::map<uint64_t, files::path> out;
  std::error_code ec;
  for (const auto& entry : files::directory_iterator(run_dir + "/flight", ec)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix) || entry.path().extension() != ".json") continue;
    try {
      out[std::stoull(name.substr(kPrefix.size()))] = entry.path();
    } catch (const std::exception&) {  // not one of ours
    }
  }
  return out;
}

bool breaks(const elastic::Event& e) {
  return e.kind == "ended" || e.kind == "silent" || e.kind == "stuck" || e.kind == "link" ||
         e.kind == "accused" || e.kind == "blamed";
}

std::string cell(const Json& call) {
  const std::string state = call["state"];
  const double s = call["seconds"];
  const int on = call["waiting_on"];
  if (state == "done") return fmt::format("{:.3f} s", s);
  return fmt::format("{} {:.2f} s{}", state, s, on >= 0 ? fmt::format(", rank {}", on) : "");
}

}  // namespace

Json gather_flight(const std::string& run_dir) {
  const double now = system_clock().unix_s();
  std::vector<std::pair<std::string, comm::FlightRecord>> all;
  uint64_t newest = 0;
  std::error_code ec;
  for (const auto& entry : files::directory_iterator(run_dir + "/flight", ec)) {
    if (entry.path().extension() != ".bin") continue;
    try {
      all.emplace_back(entry.path().stem().string(), comm::read_flight_record(entry.path().string()));
      newest = std::max(newest, all.back().second.generation);
    } catch (const Error&) {  // of another version, or being made
    }
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.rank, a.first) < std::pair(b.second.rank, b.first);
  });
  Json workers = Json::array();
  for (const auto& [name, record] : all)
    if (record.generation == newest && record.rank >= 0) workers.push_back(to_json(name, record, now));
  return {{"unix_s", now}, {"generation", newest}, {"events", Json::array()}, {"workers", workers}};
}

Json last_failure(const std::string& run_dir) {
  const auto all = failures(run_dir);
  if (all.empty()) return nullptr;
  const std::string path = all.rbegin()->second.string();
  Json out = Json::parse(io::read_text(io::real_file_system(), path, 16 << 20), nullptr, false);
  if (!out.is_object() || !out.contains("workers") || !out.contains("events"))
    fail(ErrorKind::kData, "{} is not a flight record: expected the JSON that a coordinator writes", path);
  return out;
}

std::string flight_page(const Json& record) {
  std::string out = fmt::format("generation {}, {}\n", record["generation"].get<uint64_t>(),
                                human_time(record["unix_s"].get<double>()));
  for (const Json& e : record["events"])
    out += fmt::format("  {:<8} {}\n", e["kind"].get<std::string>(), e["text"].get<std::string>());
  out += fmt::format("\n{:>4} {:<18} {:>8} {:>8} {:<11} {}\n", "rank", "worker", "pid", "step", "phase",
                     "last collective");
  // Collectives are numbered alike on all ranks; calls between two ranks are not and stay out of the table.
  std::map<uint64_t, std::pair<std::string, std::map<size_t, std::string>>> rows;
  for (size_t w = 0; w < record["workers"].size(); ++w) {
    const Json& worker = record["workers"][w];
    out += fmt::format("{:>4} {:<18} {:>8} {:>8} {:<11} {}\n", worker["rank"].get<int>(),
                       worker["worker"].get<std::string>(), worker["pid"].get<int64_t>(),
                       worker["step"].get<int64_t>(), worker["phase"].get<std::string>(),
                       worker["last_call"].get<std::string>());
    for (const Json& call : worker["calls"]) {
      if (!call.value("collective", true)) continue;
      auto& row = rows[call["sequence"].get<uint64_t>()];
      row.first =
          fmt::format("{} {}", call["name"].get<std::string>(), human_bytes(call["bytes"].get<double>()));
      row.second[w] = cell(call);
    }
  }
  if (rows.empty()) return out;
  out += fmt::format("\n{:>8} {:<28}", "number", "collective");
  for (const Json& worker : record["workers"])
    out += fmt::format(" {:<24}", fmt::format("rank {}", worker["rank"].get<int>()));
  out += "\n";
  size_t skip = rows.size() - std::min(kRowsShown, rows.size());
  for (const auto& [number, row] : rows) {
    if (skip > 0) {
      --skip;
      continue;
    }
    out += fmt::format("{:>8} {:<28}", number, row.first);
    for (size_t w = 0; w < record["workers"].size(); ++w) {
      const auto found = row.second.find(w);
      out += fmt::format(" {:<24}", found == row.second.end() ? "not begun" : found->second);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    out += "\n";
  }
  return out;
}

void FlightCollector::observe(const std::vector<elastic::Event>& events) {
  bool news = false;
  for (const elastic::Event& e : events) {
    if (!breaks(e) || e.generation == 0) continue;
    if (e.generation != generation_) {
      record_ = gather_flight(run_dir_);
      generation_ = e.generation;
      record_["generation"] = generation_;
    }
    record_["events"].push_back(Json::parse(e.json()));
    news = true;
  }
  if (!news) return;
  const std::string folder = io::join(run_dir_, "flight");
  io::real_file_system().make_dirs(folder);
  io::write_file_atomic(io::real_file_system(), fmt::format("{}/{}{}.json", folder, kPrefix, generation_),
                        record_.dump(1) + "\n");
  auto kept = failures(run_dir_);
  while (kept.size() > kKeptFailures) {
    io::real_file_system().remove(kept.begin()->second.string());
    kept.erase(kept.begin());
  }
}

}  // namespace stoker::cli
