#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cluster/processes.h"
#include "elastic/worker_link.h"
#include "io/file_system.h"
#include "net/tls_identity.h"

namespace stoker::cli {
namespace {

struct JoinFlags {
  std::string coordinator, token, run;
  bool tls = false, no_tls = false;
};

void join(const JoinFlags& flags) {
  const net::Address address = net::parse_address(flags.coordinator);
  net::check_token(flags.token);
  elastic::CoordinatorClient client(address,
                                    flags.tls      ? net::Tls::kOn
                                    : flags.no_tls ? net::Tls::kOff
                                                   : net::Tls::kAuto,
                                    flags.token);
  const std::string text = client.value("command");
  if (text.empty())
    fail(ErrorKind::kUsage,
         "the run at {} does not say what its workers run: it was not started with stoker launch",
         address.text());
  std::vector<std::string> words{cluster::own_executable()};
  const nlohmann::json command = nlohmann::json::parse(text);  // outlives the loop over it
  for (const auto& word : command.at("arguments")) words.push_back(word);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  setenv("STOKER_COORDINATOR", address.text().c_str(), 1);
  setenv("STOKER_TOKEN", flags.token.c_str(), 1);
  setenv("STOKER_WORKER", fmt::format("join.{}.{}", net::host_name(), getpid()).c_str(), 1);
  if (!flags.run.empty()) {
    io::real_file_system().make_dirs(flags.run);
    setenv("STOKER_RUN_DIR", flags.run.c_str(), 1);
  }
  fmt::print(
      stderr,
      "stoker: {} asks the run at {} for a place; without one it waits as a spare (stoker top shows it, "
      "Ctrl-C ends it)\n",
      getenv("STOKER_WORKER"), address.text());
  execv(argv[0], argv.data());
  fail(ErrorKind::kInternal, "cannot start {}", words[0]);
}

}  // namespace

void add_join(Command& app) {
  auto* cmd = app.add_subcommand("join", "Add this machine to a running run");
  auto flags = std::make_shared<JoinFlags>();
  cmd->add_option("coordinator", flags->coordinator, "HOST:PORT, from stoker launch or RUN/coordinator")
      ->required();
  cmd->add_option("--token", flags->token, "The run's token, from RUN/token")
      ->envname("STOKER_TOKEN")
      ->required();
  cmd->add_option("--run", flags->run, "Directory for this worker's files (default: the one the run names)");
  cmd->add_flag("--tls", flags->tls, "The coordinator uses TLS although it is on loopback");
  cmd->add_flag("--no-tls", flags->no_tls, "The coordinator was started with --no-tls");
  cmd->footer(
      "Example: stoker join node1:7070 --token $(cat run/token)\nRun it where stoker launch was run: the "
      "worker reads the same recipe and data. It takes part when the run wants more workers than it has, and "
      "is a spare until then: see stoker scale.");
  cmd->callback([flags] { join(*flags); });
}

}  // namespace stoker::cli
