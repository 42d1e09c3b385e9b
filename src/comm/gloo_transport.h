// comm/gloo_transport.h
// Transport over gloo's TCP pairs, between hosts (or between workers that cannot share memory). Ranks find
// each other through a Rendezvous: a small key-value store that the coordinator serves (elastic) or a
// directory (FileRendezvous). Keys carry run and generation, so an old generation cannot meet a new one.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/transport.h"

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

struct GlooGroup {
  std::string prefix;  // run and generation
  int rank = 0;
  std::vector<PeerInfo> peers;
  std::string address = "127.0.0.1";  // of this machine, as the others can dial it
};

std::unique_ptr<Transport> make_gloo_transport(const GlooGroup& group, Rendezvous& rendezvous,
                                               double deadline_s);

}  // namespace stoker::comm
