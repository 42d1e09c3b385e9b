// comm/tcp_transport.h
// Transport over TCP, moved by the rank's own thread while it waits: no thread of its own, so none that takes a core from the sums or
// has to be woken for each piece (docs/decisions says why gloo's pairs are not enough). Ranks find each other through a Rendezvous.
//
// Strangers       both ends of a connection prove that they hold the run's secret and mean the same generation (net/greeting.h); who does
//                 not is turned away and the right one may still come. Data is not encrypted
// On the wire     per message a tag and a size of 8 bytes each, then the bytes; machines of one byte order
// Whom to blame   who leaves says so, and because of whom, on a second connection; one that is gone without a word has ended. So a
//                 process that died is named by all, and not the first one that left because of it. Of those that are silent: the one
//                 that was waited for
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "comm/rendezvous.h"
#include "comm/transport.h"

namespace stoker::comm {

struct TcpGroup {
  std::string prefix;  // run and generation
  int rank = 0;
  std::vector<PeerInfo> peers;
  std::string address = "127.0.0.1";  // of this machine, as the others can dial it
  std::string secret;                 // of the run
};

// Returns when this rank is connected with all others. Errors: Peer at the deadline, naming who did not come.
std::unique_ptr<Transport> make_tcp_transport(const TcpGroup& group, Rendezvous& rendezvous,
                                              double deadline_s);

}  // namespace stoker::comm
