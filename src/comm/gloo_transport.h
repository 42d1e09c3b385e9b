// comm/gloo_transport.h
// Transport over gloo's TCP pairs, between hosts (or between workers that cannot share memory). Ranks find
// each other through a Rendezvous (comm/rendezvous.h).
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "comm/rendezvous.h"
#include "comm/transport.h"

namespace stoker::comm {

struct GlooGroup {
  std::string prefix;  // run and generation
  int rank = 0;
  std::vector<PeerInfo> peers;
  std::string address = "127.0.0.1";  // of this machine, as the others can dial it
};

std::unique_ptr<Transport> make_gloo_transport(const GlooGroup& group, Rendezvous& rendezvous,
                                               double deadline_s);

}  // namespace stoker::comm
