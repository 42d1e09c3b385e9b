#include <unistd.h>

#include <memory>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "base/stop.h"
#include "cli/command.h"
#include "cli/flight_report.h"
#include "cli/run_files.h"
#include "elastic/coordinator.h"
#include "io/atomic_write.h"
#include "io/file_system.h"

namespace stoker::cli {
namespace {

constexpr double kTellZombies_s = 30;
constexpr double kLastThread_s = 0.5;
constexpr double kLastSave_s = 60;  // what workers that were told to stop may take to save

struct CoordinatorFlags {
  elastic::CoordinatorConfig config;
  std::string run, advertise;
  bool tls = false, no_tls = false;
};

void run_coordinator(CoordinatorFlags& flags) {
  io::real_file_system().make_dirs(flags.run);
  auto& config = flags.config;
  config.token = token_of_run(flags.run, true);
  config.tls = flags.tls ? net::Tls::kOn : flags.no_tls ? net::Tls::kOff : net::Tls::kAuto;
  config.membership.run = io::name_of(flags.run);
  config.state_file = io::join(flags.run, "coordinator.json");
  config.events_file = io::join(flags.run, "events.jsonl");
  const std::string command = io::join(flags.run, "command.json");
  if (io::real_file_system().exists(command))
    config.values["command"] = io::read_text(io::real_file_system(), command, 1 << 20);
  // On shared storage RUN/coordinator is the one place that says who holds the run: a requeued job's coordinator takes over by
  // writing itself there, and this one must notice although its workers, zombies by then, are alive and well.
  const std::string file = io::join(flags.run, "coordinator");
  struct Own {
    std::mutex mutex;
    std::string text;  // empty until written
  };
  const auto own = std::make_shared<Own>();
  config.successor = [file, own]() -> std::string {
    std::lock_guard lock(own->mutex);
    if (own->text.empty()) return "";
    try {
      const std::string text = io::read_text(io::real_file_system(), file, 4096);
      return text == own->text ? "" : text.substr(0, text.find('\n'));
    } catch (const Error&) {
      return "";  // removed: somebody is about to write it
    }
  };
  const auto collector = std::make_shared<FlightCollector>(flags.run);
  config.observe = [collector](const std::vector<elastic::Event>& events) { collector->observe(events); };
  elastic::Coordinator coordinator(config);
  net::Address address = coordinator.address();
  if (!flags.advertise.empty()) address.host = flags.advertise;
  else if (address.host == "0.0.0.0" || address.host == "::") address.host = net::host_name();
  io::write_file_atomic(io::real_file_system(), file, address.text() + "\n");
  {
    std::lock_guard lock(own->mutex);
    own->text = address.text() + "\n";
  }
  fmt::print(stderr, "coordinator of {} at {}\n", flags.run, address.text());
  const pid_t starter = getppid();
  double empty_since = 0, retired_at = 0, next_look = 0;
  while (!stop_requested()) {
    // Once the run is complete and everybody has left there is nothing to coordinate.
    const bool over = coordinator.finished() && coordinator.nobody_left();
    if (!over) empty_since = 0;
    else if (empty_since == 0) empty_since = monotonic_s();
    else if (monotonic_s() - empty_since > 2) return;
    if (const double now = monotonic_s(); retired_at == 0 && now >= next_look) {
      next_look = now + 0.2;
      if (const std::string who = config.successor(); !who.empty()) {
        fmt::print(stderr,
                   "stoker: {} coordinates the run now; this coordinator tells its workers and ends\n", who);
        coordinator.retire(who);
        retired_at = now;
      }
    }
    if (retired_at > 0 && monotonic_s() - retired_at > kTellZombies_s) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  // When the launcher is gone its workers, told like this process, save: that needs somebody to allow the checkpoint. The signal comes
  // when its first thread has ended, a moment before its last.
  for (const double end = monotonic_s() + kLastThread_s;
       getppid() == starter && !coordinator.nobody_left() && monotonic_s() < end;)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (getppid() == starter) return;
  coordinator.stop("the launcher has ended");
  for (const double end = monotonic_s() + kLastSave_s; !coordinator.nobody_left() && monotonic_s() < end;)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

}  // namespace

void add_coordinator(Command& app) {
  auto* cmd =
      app.add_subcommand("coordinator", "Hold the membership of a run (stoker launch starts one by itself)");
  auto flags = std::make_shared<CoordinatorFlags>();
  cmd->add_option("--run", flags->run, "Run directory: state, events and address are kept there")->required();
  cmd->add_option("--workers", flags->config.membership.target, "Workers wanted (default 1)");
  cmd->add_option("--minimum", flags->config.membership.minimum, "Pause below this many (default 1)");
  cmd->add_option("--listen", flags->config.listen.host, "Address to listen on (default 127.0.0.1)");
  cmd->add_option("--port", flags->config.listen.port, "Port (default any free one)")->range(0, 65535);
  cmd->add_option("--advertise", flags->advertise, "Host that the workers dial");
  cmd->add_option("--heartbeat-timeout", flags->config.membership.heartbeat_timeout_s,
                  "Seconds without a sign of life until a worker is put out (default 5)")
      ->range(0.2, 3600.0);
  cmd->add_option("--admit", flags->config.membership.admit,
                  "Only workers whose name begins so: the present attempt of a requeued job");
  cmd->add_flag("--tls", flags->tls, "TLS also on loopback");
  cmd->add_flag("--no-tls", flags->no_tls, "No TLS, whoever may listen in");
  cmd->footer("Example: stoker coordinator --run runs/a --workers 8 --listen 0.0.0.0 --port 7070");
  cmd->callback([flags] { run_coordinator(*flags); });
}

}  // namespace stoker::cli
