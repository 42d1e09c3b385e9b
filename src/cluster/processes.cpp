#include "cluster/processes.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <system_error>
#include <thread>

#include "base/clock.h"
#include "base/error.h"

extern char** environ;

namespace stoker::cluster {
namespace {

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> out;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string entry = *e;
    if (added.count(entry.substr(0, entry.find('='))) == 0) out.push_back(entry);
  }
  for (const auto& [key, value] : added) out.push_back(key + "=" + value);
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

struct Files {
  int in = -1, out = -1, input_end = -1;
  ~Files() {
    for (int fd : {in, out, input_end})
      if (fd >= 0) close(fd);
  }
};

}  // namespace

Processes::~Processes() {
  for (const auto& [name, pid] : pids_) {
    ::kill(pid, SIGKILL);
    ::kill(pid, SIGCONT);
    waitpid(pid, nullptr, 0);
  }
}

pid_t Processes::start(const ProcessSpec& spec) {
  STOKER_CHECK(!spec.command.empty() && pids_.count(spec.name) == 0, "process '{}' is there already",
               spec.name);
  Files files;
  if (!spec.log_file.empty()) {
    files.out = open(spec.log_file.c_str(), O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0644);
    if (files.out < 0)
      fail(ErrorKind::kStorage, "cannot open log {}: {}", spec.log_file,
           std::generic_category().message(errno));
  }
  if (spec.input.empty()) {
    files.in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  } else {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) fail(ErrorKind::kDevice, "no pipe for '{}'", spec.name);
    files.in = ends[0];
    files.input_end = ends[1];
    if (spec.input.size() > PIPE_BUF || write(ends[1], spec.input.data(), spec.input.size()) < 0)
      fail(ErrorKind::kInternal, "cannot hand {} bytes to '{}'", spec.input.size(), spec.name);
  }
  auto arguments = spec.command;
  auto environment = merged_environment(spec.environment);
  const auto argv = pointers(arguments), envp = pointers(environment);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0)
    fail(ErrorKind::kDevice, "cannot start '{}': {}", spec.name, std::generic_category().message(errno));
  if (pid == 0) {  // only async-signal-safe calls from here to exec
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(69);
    setpgid(0, 0);  // Ctrl-C reaches the starter, which ends its children in order
    dup2(files.in, 0);
    if (files.out >= 0) {
      dup2(files.out, 1);
      dup2(files.out, 2);
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execvpe(argv[0], argv.data(), envp.data());
    constexpr char kMessage[] = "stoker: usage error: the program to start does not exist or cannot be run\n";
    (void)!write(2, kMessage, sizeof kMessage - 1);
    _exit(64);
  }
  pids_[spec.name] = pid;
  return pid;
}

std::vector<ProcessExit> Processes::reap() {
  std::vector<ProcessExit> out;
  for (auto it = pids_.begin(); it != pids_.end();) {
    int status = 0;
    if (waitpid(it->second, &status, WNOHANG) != it->second) {
      ++it;
      continue;
    }
    out.push_back({it->first, it->second, WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                   WIFSIGNALED(status) ? WTERMSIG(status) : 0});
    it = pids_.erase(it);
  }
  return out;
}

void Processes::signal(const std::string& name, int signal) {
  const auto it = pids_.find(name);
  if (it != pids_.end()) ::kill(it->second, signal);
}
void Processes::signal_all(int signal) {
  for (const auto& [name, pid] : pids_) ::kill(pid, signal);
}

std::vector<ProcessExit> Processes::end_all(double grace_s) {
  signal_all(SIGTERM);
  signal_all(SIGCONT);  // a stopped process cannot end
  std::vector<ProcessExit> out;
  const double end = monotonic_s() + grace_s;
  const auto collect = [&] {
    for (auto& e : reap()) out.push_back(e);
  };
  while (!pids_.empty() && monotonic_s() < end) {
    collect();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  signal_all(SIGKILL);
  while (!pids_.empty()) {
    collect();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return out;
}

pid_t Processes::pid(const std::string& name) const {
  const auto it = pids_.find(name);
  return it == pids_.end() ? 0 : it->second;
}

std::string own_executable() {
  std::array<char, 4096> path{};
  const ssize_t n = readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (n <= 0) fail(ErrorKind::kInternal, "cannot read /proc/self/exe");
  return {path.data(), static_cast<size_t>(n)};
}

}  // namespace stoker::cluster
