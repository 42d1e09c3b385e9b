// cli/run_files.h
// The files of a run directory that commands share: who coordinates it, and the token that lets one speak to it.
#pragma once
#include <string>

#include "net/rpc.h"

namespace stoker::cli {

struct RunAccess {
  net::Address coordinator;
  std::string token;
};

// A new token is written to RUN/token with mode 0600 unless there is one. Environment STOKER_TOKEN comes first.
std::string token_of_run(const std::string& run_dir, bool create);
// RUN/coordinator and RUN/token. Usage when the run has none: it is not running, or another directory.
RunAccess access_run(const std::string& run_dir);

}  // namespace stoker::cli
