#include "cli/worker_team.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "base/clock.h"
#include "base/hash.h"
#include "base/stop.h"
#include "base/threads.h"
#include "cli/run_files.h"
#include "cluster/place.h"
#include "io/file_system.h"

namespace stoker::cli {
namespace {

constexpr double kCoordinatorWait_s = 60;

// Rank 0 of a Slurm step holds the coordinator; it may be requeued with its state. Everybody reads its address from RUN.
std::string slurm_coordinator(const cluster::Place& place, const std::string& run_dir, WorkerTeam& out) {
  io::FileSystem& fs = io::real_file_system();
  const std::string file = io::join(run_dir, "coordinator");
  const std::string attempt =
      fmt::format("{}.{}", place.worker.substr(0, place.worker.rfind('.')), place.size);
  if (place.rank == 0) {
    fs.make_dirs(run_dir);
    if (fs.exists(file)) fs.remove(file);
    (void)token_of_run(run_dir, true);
    out.coordinator = std::make_unique<cluster::Processes>();
    std::vector<std::string> command{cluster::own_executable(),
                                     "coordinator",
                                     "--run",
                                     run_dir,
                                     "--workers",
                                     std::to_string(place.size),
                                     "--admit",
                                     place.worker.substr(0, place.worker.rfind('.') + 1)};
    // Nodes of a test cluster share one machine: then loopback will do.
    const char* loopback = std::getenv("STOKER_LOOPBACK");
    if (loopback == nullptr)
      command.insert(command.end(), {"--listen", "0.0.0.0", "--advertise", net::host_name()});
    out.coordinator->start({"coordinator", command, {}, io::join(run_dir, "coordinator.log"), ""});
  }
  const double end = monotonic_s() + kCoordinatorWait_s;
  for (;;) {
    if (fs.exists(file)) {
      const std::string text = io::read_text(fs, file, 4096);
      if (!text.empty() && text.back() == '\n') return text.substr(0, text.size() - 1);
    }
    if (stop_requested()) fail(ErrorKind::kCancelled, "stopped while waiting for the coordinator");
    if (monotonic_s() >= end)
      fail(ErrorKind::kPeer,
           "no coordinator wrote {} within {:.0f} s (attempt {}): rank 0 did not start, or run.dir is not on "
           "shared storage",
           file, kCoordinatorWait_s, attempt);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

std::string token_of(const cluster::Place& place, const std::string& run_dir) {
  if (!place.token.empty()) return place.token;
  if (!place.token_file.empty()) {
    const std::string text = io::read_text(io::real_file_system(), place.token_file, 4096);
    return text.substr(0, text.find('\n'));
  }
  return token_of_run(run_dir, false);
}

// Empty where every thread has a processor.
std::string too_many_threads(int workers, int threads, int processors) {
  if (workers < 2 || workers * threads <= processors) return "";
  const int fitting = std::max(1, processors / workers);
  const std::string what = fmt::format(
      "{} workers of {} compute thread{} each share {} processors and wait "
      "for one another; ",
      workers, threads, threads == 1 ? "" : "s", processors);
  if (fitting < threads)
    return what + fmt::format("set train.threads = {} (it is part of a run's bits)", fitting);
  return what + fmt::format("{} would be as fast", processors);
}

}  // namespace

WorkerTeam make_worker_team(const WorkerTeamOptions& options) {
  WorkerTeam out;
  const cluster::Place place = cluster::find_place(cluster::process_environment);
  if (place.starter == cluster::Starter::kNone) return out;
  // A peer that has ended is an error of the call that writes to it, not the end of this process.
  std::signal(SIGPIPE, SIG_IGN);
  const std::string run_dir = place.run_dir.empty() ? options.run_dir : place.run_dir;
  io::real_file_system().make_dirs(io::join(run_dir, "flight"));
  train::TeamConfig config;
  const std::string address =
      place.coordinator.empty() ? slurm_coordinator(place, run_dir, out) : place.coordinator;
  config.link.coordinator = net::parse_address(address);
  config.link.token = token_of(place, run_dir);
  if (std::getenv("STOKER_NO_TLS") != nullptr) config.link.tls = net::Tls::kOff;
  config.link.address_file = io::join(run_dir, "coordinator");
  config.link.who.worker = place.worker;
  config.link.who.host = place.node.empty() ? net::host_name() : place.node;
  config.link.who.pid = getpid();
  const char* own_address = std::getenv("STOKER_ADDRESS");
  config.link.who.address =
      own_address != nullptr ? own_address : net::local_address_towards(config.link.coordinator);
  config.run = fmt::format("{:016x}", hash64(config.link.token));
  config.flight_file = fmt::format("{}/flight/{}.bin", run_dir, place.worker);
  io::real_file_system().make_dirs(io::join(run_dir, "trace"));
  config.trace_file = fmt::format("{}/trace/{}.jsonl", run_dir, place.worker);
  config.transport = options.transport;
  config.timeout_s = options.timeout_s;
  config.chaos = std::getenv("STOKER_CHAOS") != nullptr;
  out.team = std::make_unique<train::Team>(std::move(config), options.virtual_ranks);
  const int processors = static_cast<int>(std::thread::hardware_concurrency());
  if (const int workers = place.local_workers, threads = compute_threads(); place.local_rank == 0)
    if (const std::string advice = too_many_threads(workers, threads, processors); !advice.empty())
      out.team->note("threads", advice);
  return out;
}

}  // namespace stoker::cli
