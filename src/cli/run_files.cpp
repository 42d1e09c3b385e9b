#include "cli/run_files.h"

#include <sys/stat.h>

#include <cstdlib>

#include "io/atomic_write.h"
#include "io/file_system.h"
#include "net/tls_identity.h"

namespace stoker::cli {
namespace {
std::string first_line(const std::string& path) {
  const std::string text = io::read_text(io::real_file_system(), path, 4096);
  return text.substr(0, text.find('\n'));
}

net::Address coordinator_of(const std::string& run_dir) {
  io::FileSystem& fs = io::real_file_system();
  if (!fs.exists(run_dir)) fail(ErrorKind::kUsage, "there is no run directory {}", run_dir);
  const std::string path = io::join(run_dir, "coordinator");
  if (!fs.exists(path))
    fail(ErrorKind::kUsage,
         "{} has no file `coordinator`: expected the directory (run.dir) of a run of several workers that "
         "stoker launch started",
         run_dir);
  return net::parse_address(first_line(path));
}
}  // namespace

std::string token_of_run(const std::string& run_dir, bool create) {
  if (const char* token = std::getenv("STOKER_TOKEN"); token != nullptr && *token != '\0') {
    net::check_token(token);
    return token;
  }
  const std::string path = io::join(run_dir, "token");
  if (!io::real_file_system().exists(path)) {
    if (!create)
      fail(ErrorKind::kUsage,
           "{} has no token: expected the directory of a run that was started with stoker launch", run_dir);
    const mode_t before = umask(0177);
    io::write_file_atomic(io::real_file_system(), path, net::new_token() + "\n");
    umask(before);
  }
  const std::string token = first_line(path);
  net::check_token(token);
  return token;
}

RunLine::RunLine(const std::string& run_dir)
    : run_dir_(run_dir), client_{coordinator_of(run_dir), net::Tls::kAuto, token_of_run(run_dir, false)} {}

void RunLine::explain(const Error& error) const {
  fail(ErrorKind::kPeer,
       "{} is not running, as far as can be seen from here: {} A run that was stopped goes on when the "
       "command "
       "that started it is given again.",
       run_dir_, error.what());
}

}  // namespace stoker::cli
