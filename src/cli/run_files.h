// cli/run_files.h
// The files of a run directory that commands share: who coordinates it, and the token that lets one speak to it.
#pragma once
#include <string>

#include "elastic/worker_link.h"

namespace stoker::cli {

// Where a train command ("train", "recipe.toml", ...) puts its run: the recipe's run.dir. Usage when either cannot be read.
std::string run_directory_of(const std::vector<std::string>& train_command);
// A new token is written to RUN/token with mode 0600 unless there is one. Environment STOKER_TOKEN comes first.
std::string token_of_run(const std::string& run_dir, bool create);

// The line to the run of a directory: RUN/coordinator and RUN/token. Usage when it has none: another directory.
class RunLine {
 public:
  explicit RunLine(const std::string& run_dir);
  // ask(client) with an elastic::CoordinatorClient; Peer, in the run's terms, when nobody answers.
  template <typename Ask>
  auto ask(const Ask& ask) -> decltype(ask(std::declval<elastic::CoordinatorClient&>())) {
    try {
      return ask(client_);
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::kPeer) explain(e);
      throw;
    }
  }

 private:
  [[noreturn]] void explain(const Error& error) const;
  std::string run_dir_;
  elastic::CoordinatorClient client_;
};

}  // namespace stoker::cli
