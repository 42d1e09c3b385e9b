// cluster/processes.h
// Child processes of this one, each with its own log file. Never touches a process that it did not start.
//   A child is told (SIGTERM) when its starter dies, so nothing is left running.
// Errors       Device: no more processes; Storage: the log cannot be opened
// Threads      one thread
#pragma once
#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace stoker::cluster {

struct ProcessSpec {
  std::string name;
  std::vector<std::string> command;                // command[0] is looked up in PATH when it has no '/'
  std::map<std::string, std::string> environment;  // added to ours
  std::string log_file;                            // stdout and stderr are appended; empty: ours
  std::string input;                               // small text for its stdin (a secret); empty: /dev/null
};

struct ProcessExit {
  std::string name;
  pid_t pid = 0;
  int exit_code = 0;
  int signal = 0;
};

class Processes {
 public:
  Processes() = default;
  ~Processes();  // kills what still runs
  Processes(const Processes&) = delete;
  pid_t start(const ProcessSpec& spec);
  std::vector<ProcessExit> reap();  // those that ended since the last call; does not block
  void signal(const std::string& name, int signal);
  void signal_all(int signal);
  // SIGTERM, and SIGKILL for whoever is left after grace_s.
  std::vector<ProcessExit> end_all(double grace_s);
  bool running(const std::string& name) const { return pids_.count(name) > 0; }
  size_t count() const { return pids_.size(); }
  pid_t pid(const std::string& name) const;

 private:
  std::map<std::string, pid_t> pids_;
};

std::string own_executable();

}  // namespace stoker::cluster
