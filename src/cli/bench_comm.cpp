#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "cli/command.h"
#include "comm/bench_comm.h"

namespace stoker::cli {
namespace {
nlohmann::json to_json(const comm::CommBenchRow& row) {
  return {{"workers", row.workers},
          {"bytes", row.bytes},
          {"rounds", row.rounds},
          {"gloo_ring_s", row.gloo_ring_s},
          {"gloo_halving_s", row.gloo_halving_s},
          {"gloo_bcube_s", row.gloo_bcube_s},
          {"tree_gloo_s", row.tree_gloo_s},
          {"tree_tcp_s", row.tree_tcp_s},
          {"tree_shm_s", row.tree_shm_s},
          {"ratio_gloo", row.ratio_gloo()},
          {"ratio_tcp", row.ratio_tcp()},
          {"ratio_shm", row.ratio_shm()},
          {"same_bits", row.same_bits}};
}
}  // namespace

void add_bench_comm(Command& bench) {
  auto* cmd = bench.add_subcommand("comm", "Canonical tree sums against the fastest plain gloo all-reduce");
  struct Flags {
    comm::CommBenchOptions options;
    std::vector<double> megabytes{25, 250};
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  cmd->add_option("--workers", flags->options.workers, "Process counts (default 2 4 8)");
  cmd->add_option("--megabytes", flags->megabytes, "Payloads in MB (default 25 250)");
  cmd->add_option("--seconds", flags->options.seconds_per_row, "Time per row (default 4)");
  cmd->add_flag("--json", flags->json, "Print JSON (docs/json.md)");
  cmd->footer("Example: stoker bench comm --workers 2 4 --megabytes 25");
  cmd->callback([flags] {
    flags->options.bytes.clear();
    for (double mb : flags->megabytes) {
      if (!(mb > 0 && mb < 5000))
        fail(ErrorKind::kUsage, "--megabytes {}: expected more than 0 and below 5000", mb);
      flags->options.bytes.push_back(static_cast<size_t>(mb * 1e6));
    }
    if (!flags->json)
      fmt::print("{:>7} {:>9} {:>10} {:>10} {:>6} {:>10} {:>6} {:>10} {:>6} {:>9} {:>6}\n", "workers",
                 "payload", "plain gloo", "tree tcp", "ratio", "tree gloo", "ratio", "tree shm", "ratio",
                 "same bits", "rounds");
    auto all = nlohmann::json::array();
    comm::run_comm_bench(flags->options, [&](const comm::CommBenchRow& row) {
      all.push_back(to_json(row));
      if (!flags->json)
        fmt::print(
            "{:>7} {:>9} {:>8.1f}ms {:>8.1f}ms {:>6.2f} {:>8.1f}ms {:>6.2f} {:>8.1f}ms {:>6.2f} {:>9} "
            "{:>6}\n",
            row.workers, human_bytes(static_cast<double>(row.bytes)), row.plain_s() * 1e3,
            row.tree_tcp_s * 1e3, row.ratio_tcp(), row.tree_gloo_s * 1e3, row.ratio_gloo(),
            row.tree_shm_s * 1e3, row.ratio_shm(), row.same_bits ? "yes" : "NO", row.rounds);
      std::fflush(stdout);
    });
    if (flags->json) fmt::print("{}\n", nlohmann::json{{"rows", all}}.dump(2));
  });
}

}  // namespace stoker::cli
