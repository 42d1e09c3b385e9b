#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/progress.h"
#include "base/stop.h"
#include "cli/command.h"
#include "cli/run_files.h"
#include "cli/run_view.h"
#include "cluster/kubernetes.h"
#include "cluster/launcher.h"
#include "elastic/worker_link.h"
#include "io/atomic_write.h"
#include "io/file_system.h"
#include "net/tls_identity.h"

namespace stoker::cli {
namespace {

struct LaunchFlags {
  int workers = 1, minimum = 1, max_restarts = 1000;
  std::string hosts, run, ssh = "ssh", remote_program;
  double heartbeat_timeout_s = 5;
  bool no_tls = false;
  std::vector<std::string> command;
  cluster::KubernetesRun kubernetes;
};

void print_manifest(const LaunchFlags& flags) {
  cluster::KubernetesRun run = flags.kubernetes;
  run.workers = flags.workers;
  run.minimum = flags.minimum;
  run.max_replacements = flags.max_restarts;
  run.train_arguments.assign(flags.command.begin() + 1, flags.command.end());
  run.token = net::new_token();
  fmt::print("{}", cluster::render_kubernetes(run));
}

int launch(LaunchFlags flags) {
  if (flags.minimum < 1 || flags.minimum > flags.workers)
    fail(ErrorKind::kUsage, "{} workers with a minimum of {}: expected 1 <= minimum <= workers",
         flags.workers, flags.minimum);
  // One directory for what workers and coordinator write, whichever way it is said.
  if (flags.run.empty()) flags.run = run_directory_of(flags.command);
  else flags.command.insert(flags.command.end(), {"--set", fmt::format("run.dir=\"{}\"", flags.run)});
  cluster::LaunchPlan plan;
  plan.workers = flags.workers;
  plan.minimum = flags.minimum;
  plan.max_restarts = flags.max_restarts;
  plan.run_dir = flags.run;
  plan.ssh = {flags.ssh};
  if (!flags.hosts.empty()) plan.hosts = cluster::parse_hosts(flags.hosts);
  io::real_file_system().make_dirs(flags.run);
  // A new token and no old state: workers of an earlier run of this directory, alive or zombie, are strangers.
  for (const char* old : {"token", "coordinator.json"})
    if (const std::string path = io::join(flags.run, old); io::real_file_system().exists(path))
      io::real_file_system().remove(path);
  plan.token = token_of_run(flags.run, true);
  const std::string program = cluster::own_executable();
  plan.worker_command = {plan.hosts.empty() || flags.remote_program.empty() ? program : flags.remote_program};
  plan.worker_command.insert(plan.worker_command.end(), flags.command.begin(), flags.command.end());
  plan.coordinator_command = {program,
                              "coordinator",
                              "--run",
                              flags.run,
                              "--workers",
                              std::to_string(flags.workers),
                              "--minimum",
                              std::to_string(flags.minimum),
                              "--heartbeat-timeout",
                              fmt::format("{}", flags.heartbeat_timeout_s)};
  if (!plan.hosts.empty()) {
    const std::string first = plan.hosts.front().host;
    const std::string towards = first.substr(first.find('@') == std::string::npos ? 0 : first.find('@') + 1);
    const std::string own = net::local_address_towards({towards, 22});
    // Whether there is TLS follows from the address on both sides, so the two must agree.
    const bool beyond = net::wants_tls(net::Tls::kAuto, own);
    plan.coordinator_command.insert(plan.coordinator_command.end(),
                                    {"--listen", beyond ? "0.0.0.0" : own, "--advertise", own});
    if (flags.no_tls) {
      plan.coordinator_command.push_back("--no-tls");
      plan.environment.insert_or_assign("STOKER_NO_TLS", std::string(1, '1'));
    }
  }
  // `stoker join` asks the coordinator's run directory what to run.
  io::write_file_atomic(io::real_file_system(), io::join(flags.run, "command.json"),
                        nlohmann::json{{"arguments", flags.command}}.dump() + "\n");

  std::unique_ptr<RunView> view;
  cluster::Launcher launcher(plan, RunView::hooks(view, RunView::say));
  launcher.start_coordinator();
  view = std::make_unique<RunView>(net::parse_address(launcher.address()),
                                   flags.no_tls ? net::Tls::kOff : net::Tls::kAuto, plan.token, true);
  fmt::print(stderr, "stoker: {} worker{}, coordinator {}, logs in {}/logs\n", flags.workers,
             flags.workers == 1 ? "" : "s", launcher.address(), flags.run);
  if (!plan.hosts.empty())
    fmt::print(stderr, "stoker: more workers may come with: stoker join {} --token $(cat {}/token)\n",
               launcher.address(), flags.run);
  const double began_s = monotonic_s();
  const int code = launcher.run();
  if (code == 0)
    RunView::say(fmt::format("the run is complete after {}; what each worker said is in {}/logs",
                             human_duration(monotonic_s() - began_s), flags.run));
  return code;
}

}  // namespace

void add_launch(Command& app) {
  auto* cmd = app.add_subcommand("launch", "Start and supervise the workers of a run, here or over SSH");
  auto flags = std::make_shared<LaunchFlags>();
  cmd->add_option("-n,--workers", flags->workers, "Workers")->range(1, 4096);
  cmd->add_option("--minimum", flags->minimum, "Pause below this many workers (default 1)");
  cmd->add_option("--hosts", flags->hosts, "Hosts over SSH: a,b:4,user@c:2 (name[:workers])");
  cmd->add_option("--run", flags->run,
                  "Run directory (default: the recipe's run.dir); on shared storage when there are several "
                  "hosts");
  cmd->add_option("--restarts", flags->max_restarts, "Replacements for lost workers in all (default 1000)");
  cmd->add_option("--heartbeat-timeout", flags->heartbeat_timeout_s,
                  "Seconds until a silent worker is put out (default 5)");
  cmd->add_option("--ssh", flags->ssh, "The ssh program");
  cmd->add_option("--remote-program", flags->remote_program,
                  "Where stoker is on the other hosts (default: same path)");
  cmd->add_flag("--no-tls", flags->no_tls, "No TLS between hosts");
  cluster::KubernetesRun& k = flags->kubernetes;
  cmd->add_option("--kubernetes", k.name, "Start nothing: print the run of this name as Kubernetes objects")
      ->group("Kubernetes");
  cmd->add_option("--image", k.image, "Container image with stoker in it")->group("Kubernetes");
  cmd->add_option("--namespace", k.name_space, "Kubernetes namespace (default: default)")
      ->group("Kubernetes");
  cmd->add_option("--claim", k.volume_claim, "Volume claim for the run directory, shared by all workers")
      ->group("Kubernetes");
  cmd->add_option("--gpus", k.gpus_per_worker, "GPUs of each worker")->group("Kubernetes");
  cmd->add_option("--cpu", k.cpu, "CPUs of each worker (default 4)")->group("Kubernetes");
  cmd->add_option("--memory", k.memory, "Memory of each worker (default 16Gi)")->group("Kubernetes");
  cmd->add_option("command", flags->command, "The stoker command of each worker, after --")->required();
  cmd->footer(
      "Examples:\n"
      "  stoker launch -n 4 -- train recipe.toml\n"
      "  stoker launch -n 8 --hosts node1:4,node2:4 --run /shared/runs/a -- train recipe.toml\n"
      "  stoker launch -n 8 --kubernetes a --image registry/stoker:0.1 --claim runs -- train recipe.toml | "
      "kubectl apply -f -");
  cmd->callback([flags] {
    if (flags->command.front() != "train")
      fail(ErrorKind::kUsage,
           "stoker launch starts train commands: expected `-- train RECIPE...`, found `-- {}`",
           flags->command.front());
    if (!flags->kubernetes.name.empty()) return print_manifest(*flags);
    if (const int code = launch(*flags); code != 0) throw ExitWith(code);
  });
}

}  // namespace stoker::cli
