#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "cli/command.h"
#include "comm/flight_recorder.h"
#include "io/atomic_write.h"
#include "io/file_system.h"
#include "trace/chrome.h"

namespace stoker::cli {
namespace {
namespace files = std::filesystem;

std::vector<files::path> in_folder(const std::string& folder) {
  std::vector<files::path> out;
  std::error_code ec;
  for (const auto& entry : files::directory_iterator(folder, ec))
    if (entry.is_regular_file()) out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

void add_phases(const std::string& run, std::vector<trace::ChromeSpan>& spans) {
  for (const files::path& path : in_folder(run + "/trace")) {
    std::string name = path.filename().string();  // WORKER.jsonl or WORKER.jsonl.1
    name = name.substr(0, name.find(".jsonl"));
    for (auto& span : trace::read_spans(path.string(), name)) spans.push_back(std::move(span));
  }
}

void add_collectives(const std::string& run, std::vector<trace::ChromeSpan>& spans) {
  for (const files::path& path : in_folder(run + "/flight")) {
    if (path.extension() != ".bin") continue;
    comm::FlightRecord record;
    try {
      record = comm::read_flight_record(path.string());
    } catch (const Error&) {  // of another version, or cut off
      continue;
    }
    for (const comm::CallRecord& call : record.calls)
      spans.push_back({path.stem().string(), "collectives", std::string(call.call()), call.started_s,
                       call.took_s, -1,
                       fmt::format("#{} of {}{}", call.sequence, human_bytes(static_cast<double>(call.bytes)),
                                   call.state == comm::CallState::kDone ? ""
                                   : call.state == comm::CallState::kFailed
                                       ? fmt::format(", failed on rank {}", call.waiting_on)
                                       : fmt::format(", waiting on rank {}", call.waiting_on))});
  }
}

void add_events(const std::string& run, std::vector<trace::ChromeInstant>& instants) {
  std::ifstream in(run + "/events.jsonl");
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (j.is_object() && j.contains("unix_s") && j["unix_s"].is_number())
      instants.push_back({"coordinator", j.value("kind", ""), j.value("text", ""), j["unix_s"]});
  }
}

void export_trace(const std::string& run, const std::string& out) {
  std::vector<trace::ChromeSpan> spans;
  std::vector<trace::ChromeInstant> instants;
  add_phases(run, spans);
  add_collectives(run, spans);
  add_events(run, instants);
  if (spans.empty() && instants.empty())
    fail(ErrorKind::kUsage,
         "{} has no trace: expected the directory of a run of several workers (stoker launch)", run);
  io::write_file_atomic(io::real_file_system(), out, trace::chrome_trace(spans, instants));
  fmt::print("{}: {} spans and {} events; open it at ui.perfetto.dev or in chrome://tracing\n", out,
             spans.size(), instants.size());
}

}  // namespace

void add_run_trace(Command& app) {
  auto* cmd = app.add_subcommand("trace", "Write what the workers of a run did when as a file for Perfetto");
  struct Flags {
    std::string run, out;
  };
  auto flags = std::make_shared<Flags>();
  cmd->add_option("run", flags->run, "Run directory, of a run that runs or has ended")->required();
  cmd->add_option("-o,--out", flags->out, "Chrome trace JSON (default RUN/trace.json)");
  cmd->footer(
      "Example: stoker trace run --out trace.json\nPhases of each worker, its last collectives, and the "
      "coordinator's events.");
  cmd->callback(
      [flags] { export_trace(flags->run, flags->out.empty() ? flags->run + "/trace.json" : flags->out); });
}

}  // namespace stoker::cli
