#include "cluster/namespaces.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/error.h"

extern char** environ;

namespace stoker::cluster {
namespace {

// Exit code of `ip WORDS...`; -1 when it cannot be started.
int ip(const std::vector<std::string>& words, bool quiet = false) {
  std::vector<std::string> all{"ip"};
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& w : all) argv.push_back(w.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  if (quiet) posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, "ip", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return -1;
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

void must(const std::vector<std::string>& words) {
  if (const int code = ip(words); code != 0) {
    std::string line = "ip";
    for (const std::string& w : words) line += " " + w;
    fail(ErrorKind::kDevice, "'{}' failed ({}): network namespaces need root", line, code);
  }
}

}  // namespace

std::string Namespaces::why_not() {
  if (geteuid() != 0) return "network namespaces need root";
  if (ip({"-V"}, true) != 0) return "the program ip is missing (package iproute2)";
  const std::string probe = fmt::format("stkp{}", getpid());
  if (ip({"netns", "add", probe}, true) != 0) return "the kernel or container refuses network namespaces";
  const bool links = ip({"link", "add", probe, "type", "bridge"}, true) == 0 &&
                     ip({"netns", "exec", probe, "ip", "link", "set", "lo", "up"}, true) == 0;
  ip({"link", "del", probe}, true);
  ip({"netns", "del", probe}, true);
  return links ? "" : "the kernel or container refuses bridges between network namespaces";
}

Namespaces::Namespaces(int count) : count_(count), number_(static_cast<int>(getpid() % 250) + 1) {
  if (count < 1 || count > 200)
    fail(ErrorKind::kUsage, "network namespaces: expected 1 to 200, found {}", count);
  bridge_ = fmt::format("stkb{}", number_);
  remove_all();
  try {
    must({"link", "add", bridge_, "type", "bridge"});
    must({"addr", "add", address() + "/24", "dev", bridge_});
    must({"link", "set", bridge_, "up"});
    for (int i = 0; i < count_; ++i) {
      const std::string inside = cable(i) + "p";
      must({"netns", "add", name(i)});
      must({"link", "add", cable(i), "type", "veth", "peer", "name", inside, "netns", name(i)});
      must({"link", "set", cable(i), "master", bridge_, "up"});
      must({"-n", name(i), "addr", "add", fmt::format("198.18.{}.{}/24", number_, i + 2), "dev", inside});
      must({"-n", name(i), "link", "set", inside, "up"});
      must({"-n", name(i), "link", "set", "lo", "up"});
    }
  } catch (...) {
    remove_all();
    throw;
  }
}

Namespaces::~Namespaces() { remove_all(); }

void Namespaces::remove_all() noexcept {
  for (int i = 0; i < count_; ++i) {
    ip({"link", "del", cable(i)}, true);
    ip({"netns", "del", name(i)}, true);
  }
  ip({"link", "del", bridge_}, true);
}

std::string Namespaces::address() const { return fmt::format("198.18.{}.1", number_); }
std::string Namespaces::name(int i) const { return fmt::format("stk{}-{}", number_, i); }
std::string Namespaces::cable(int i) const { return fmt::format("stkv{}-{}", number_, i); }
std::vector<std::string> Namespaces::enter(int i) const { return {"ip", "netns", "exec", name(i)}; }

// Leaving the bridge keeps the link up at both ends: as with a cut behind the next switch, nobody gets an error.
void Namespaces::cut(int i) { must({"link", "set", cable(i), "nomaster"}); }
void Namespaces::heal(int i) { must({"link", "set", cable(i), "master", bridge_}); }

}  // namespace stoker::cluster
