#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "cli/command.h"
#include "cli/machine_check.h"

namespace stoker::cli {
namespace {

using OrderedJson = nlohmann::ordered_json;

template <typename T>
OrderedJson or_null(const std::optional<T>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

OrderedJson to_json(const Machine& m, const std::optional<Speeds>& s) {
  OrderedJson j{{"cpu", m.cpu},
                {"isa", m.isa},
                {"threads", m.threads},
                {"memory_bytes", m.memory_bytes},
                {"memory_available_bytes", m.available_bytes},
                {"memory_limit_bytes", or_null(m.memory_limit)},
                {"cpu_limit", or_null(m.cpu_limit)},
                {"load", m.load},
                {"huge_pages", m.huge_pages},
                {"governor", m.governor.empty() ? OrderedJson(nullptr) : OrderedJson(m.governor)},
                {"clock_source", m.clock_source},
                {"clock_synchronized", or_null(m.clock_synchronized)},
                {"open_files_limit", m.open_files_limit}};
  if (s) {
    const auto positive = [](double v) { return v > 0 ? OrderedJson(v) : OrderedJson(nullptr); };
    j["memory_bytes_per_s"] = positive(s->memory_bytes_per_s);
    j["bf16_gflops"] = positive(s->bf16_flops / 1e9);
    j["fp32_gflops"] = positive(s->fp32_flops / 1e9);
    j["disk_write_bytes_per_s"] = positive(s->disk_write_bytes_per_s);
    j["disk_sync_s"] = positive(s->sync_s);
    j["disk_free_bytes"] = s->disk_free_bytes;
  }
  j["warnings"] = warnings(m, s);
  return j;
}

void print(const Machine& m, const std::optional<Speeds>& s) {
  fmt::print(
      "processor     {}\ninstructions  {}\nthreads       {}{}\nmemory        {}, {} free{}\n", m.cpu, m.isa,
      m.threads, m.cpu_limit ? fmt::format(" (control group: {:.2f} processors)", *m.cpu_limit) : "",
      human_bytes(static_cast<double>(m.memory_bytes)), human_bytes(static_cast<double>(m.available_bytes)),
      m.memory_limit ? fmt::format(" (control group: {})", human_bytes(static_cast<double>(*m.memory_limit)))
                     : "");
  fmt::print("huge pages    {}\nclock         {}{}\n", m.huge_pages.empty() ? "?" : m.huge_pages,
             m.clock_source,
             !m.clock_synchronized   ? ""
             : *m.clock_synchronized ? ", synchronized"
                                     : ", not synchronized");
  if (s) {
    fmt::print("bandwidth     {}/s (triad)\nbf16 products {:.0f} GFLOP/s\nfp32 products {:.0f} GFLOP/s\n",
               human_bytes(s->memory_bytes_per_s), s->bf16_flops / 1e9, s->fp32_flops / 1e9);
    if (s->disk_error.empty())
      fmt::print("disk          {}/s written and synced, {:.1f} ms a sync, {} free\n",
                 human_bytes(s->disk_write_bytes_per_s), s->sync_s * 1e3,
                 human_bytes(static_cast<double>(s->disk_free_bytes)));
  }
  const auto found = warnings(m, s);
  for (const std::string& w : found) fmt::print("\nwarning: {}", w);
  fmt::print("{}", found.empty() ? "\nNothing to complain about.\n" : "\n");
}

}  // namespace

void add_doctor(Command& app) {
  struct Options {
    bool json = false, quick = false;
    std::string directory = ".";
  };
  const auto o = std::make_shared<Options>();
  auto* cmd = app.add_subcommand("doctor", "Say what this machine is and whether it is fit to train");
  cmd->add_flag("--json", o->json, "Print JSON (docs/json.md)");
  cmd->add_flag("--quick", o->quick, "Only look, measure nothing");
  cmd->add_option("--dir", o->directory, "Measure the disk that holds this directory")->capture_default_str();
  cmd->footer("Examples:\n  stoker doctor\n  stoker doctor --dir /data/runs --json");
  cmd->callback([o] {
    const Machine machine = look();
    std::optional<Speeds> speeds;
    if (!o->quick) speeds = measure(o->directory);
    if (o->json) fmt::print("{}\n", to_json(machine, speeds).dump(2));
    else print(machine, speeds);
  });
}

}  // namespace stoker::cli
