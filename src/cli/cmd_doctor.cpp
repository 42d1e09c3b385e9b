#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/cpu_features.h"
#include "base/progress.h"
#include "base/threads.h"
#include "cli/command.h"

#include <unistd.h>

namespace stoker::cli {
namespace {
const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16:
      return "avx512-bf16";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kBaseline:
      break;
  }
  return "x86-64-v2";
}
}  // namespace

void add_doctor(CLI::App& app) {
  auto* cmd = app.add_subcommand("doctor", "Say what this machine is and whether it is fit to train");
  auto json = std::make_shared<bool>(false);
  cmd->add_flag("--json", *json, "Print JSON (docs/json.md)");
  cmd->callback([json] {
    const double memory =
        static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
    if (*json) {
      fmt::print("{}\n", nlohmann::json{{"cpu", cpu_name()},
                                        {"isa", isa_name(cpu_isa())},
                                        {"threads", compute_threads()},
                                        {"memory_bytes", memory}}
                             .dump(2));
      return;
    }
    fmt::print("processor   {}\ninstructions {}\nthreads     {}\nmemory      {}\n", cpu_name(),
               isa_name(cpu_isa()), compute_threads(), human_bytes(memory));
  });
}

}  // namespace stoker::cli
