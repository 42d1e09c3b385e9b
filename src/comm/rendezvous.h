// comm/rendezvous.h
// Where the ranks of a generation leave their addresses for each other: a small key-value store that the coordinator serves (elastic) or
// a directory. Keys carry run and generation, so an old generation cannot meet a new one.
#pragma once
#include <memory>
#include <string>

namespace stoker::comm {

class Rendezvous {
 public:
  virtual ~Rendezvous() = default;
  virtual void set(const std::string& key, const std::string& value) = 0;
  // Waits for the key. Errors: Peer at the deadline.
  virtual std::string get(const std::string& key, double deadline_s) = 0;
};

// One file per key, written atomically. For benchmarks and tests on one machine.
std::unique_ptr<Rendezvous> make_file_rendezvous(const std::string& directory);

}  // namespace stoker::comm
