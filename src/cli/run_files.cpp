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

RunAccess access_run(const std::string& run_dir) {
  const std::string path = io::join(run_dir, "coordinator");
  if (!io::real_file_system().exists(path))
    fail(ErrorKind::kUsage,
         "{} names no coordinator: expected the directory of a running run (stoker launch --run DIR)",
         run_dir);
  return {net::parse_address(first_line(path)), token_of_run(run_dir, false)};
}

}  // namespace stoker::cli
