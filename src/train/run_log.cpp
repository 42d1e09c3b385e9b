#include "train/run_log.h"

#include <unistd.h>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "io/file_system.h"

namespace stoker::train {
namespace {

// Length of the file up to and including its last newline.
long whole_lines(std::FILE* file) {
  std::fseek(file, 0, SEEK_END);
  long end = std::ftell(file);
  while (end > 0) {
    std::fseek(file, end - 1, SEEK_SET);
    if (std::fgetc(file) == '\n') break;
    --end;
  }
  return end;
}

}  // namespace

RunLog::RunLog(const std::string& path) {
  file_ = std::fopen(path.c_str(), "a+b");
  if (!file_) io::fail_errno("open", path, errno);
  const long end = whole_lines(file_);
  if (ftruncate(fileno(file_), end)) io::fail_errno("truncate", path, errno);
}
RunLog::~RunLog() { std::fclose(file_); }

void RunLog::write(const nlohmann::json& event) {
  nlohmann::json line = event;
  line["unix_s"] = system_clock().unix_s();
  if (dropped_) line["dropped_lines"] = dropped_;
  const std::string text = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), file_) == text.size() && std::fflush(file_) == 0) dropped_ = 0;
  else {
    ++dropped_;
    std::clearerr(file_);
  }
}

}  // namespace stoker::train
