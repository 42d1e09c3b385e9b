// cluster/namespaces.h
// Network namespaces of this machine that stand for other machines: each has its own address on one bridge, and its cable can
// be pulled and put back. For tests and `stoker chaos`; needs root and the `ip` program.
//   bridge 198.18.N.1 (here) --- 198.18.N.2, 198.18.N.3, ... (addresses kept for benchmarks, RFC 2544)
// Everything is removed by the destructor; what an earlier, killed process of the same number left is removed first.
// Errors       Device: the kernel refuses (why_not() says so beforehand)
#pragma once
#include <string>
#include <vector>

namespace stoker::cluster {

class Namespaces {
 public:
  static std::string why_not();  // empty: they can be made here
  explicit Namespaces(int count);
  ~Namespaces();
  Namespaces(const Namespaces&) = delete;

  std::string address() const;                  // of this side of the bridge
  std::vector<std::string> enter(int i) const;  // words to put before a command
  void cut(int i);                              // packets to and from i vanish; nobody is told
  void heal(int i);

 private:
  std::string name(int i) const;
  std::string cable(int i) const;
  void remove_all() noexcept;
  int count_, number_;
  std::string bridge_;
};

}  // namespace stoker::cluster
