// elastic/blame.h
// Who held the others up, from what each rank says about its own waiting. Whoever waits looks guilty to somebody else, so the
// first accuser is often wrong: a lost message makes its receiver late, and the receiver others.
//   Lost       r waits for message k of s, and s has begun to send it: it was lost between them, and whichever of the ranks has
//              a part in most such losses is to blame; of one single loss the sender. A wait that was cut short, by a peer
//              that left in despair, proves nothing: it counts from half the longest wait on
//   Late       nothing was lost: whoever stands at the end of the longest queue of ranks that wait for one another
// Cost         ranks^2
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace stoker::elastic {

// comm::Standing, as it travels.
struct Standing {
  int waits_on = -1;
  int64_t message = -1;
  double waited_s = 0;
  std::vector<uint64_t> sent;
};

struct Blame {
  int rank = -1;
  std::string why;  // "message 17 from it to rank 0 was sent and never arrived"
};

// standings: by rank, of those that have spoken. Two are blamed when nothing tells them apart; nobody when nobody waits, or when
// they wait in a circle although nothing was lost.
std::vector<Blame> who_held_up(const std::map<int, Standing>& standings);

}  // namespace stoker::elastic
