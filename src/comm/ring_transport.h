// comm/ring_transport.h
// Transport over byte rings in memory: between threads of one process (LocalGroup) and between workers of one
// host (make_shm_transport). Each rank owns one segment that holds the rings the others write into, and a
// doorbell (a futex word) that they ring after moving bytes, so a waiting rank sleeps instead of burning a
// core its peer needs.
//
// Shared memory   /dev/shm/stoker.<run>.<generation>.<worker>: named by run, generation and worker, never by
// hostname
//                 (two Slurm nodes on one machine share a hostname). Unlinked as soon as every rank has it
//                 open, so a killed run leaves nothing behind. A zombie of an older generation writes into
//                 memory nobody reads.
// Dead peers      a peer's exit is seen through its pidfd (no pid reuse race) within kLivenessPeriod.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "comm/transport.h"

namespace stoker::comm {

inline constexpr size_t kDefaultRingBytes = size_t{1} << 20;

// Ranks of a test in one process: transport(r) is used by one thread.
class LocalGroup {
 public:
  explicit LocalGroup(int size, size_t ring_bytes = size_t{1} << 16);
  ~LocalGroup();
  std::unique_ptr<Transport> transport(int rank);
  void kill(int rank);  // the others see its process as gone
 private:
  struct State;
  std::shared_ptr<State> state_;
};

struct ShmGroup {
  std::string run;
  uint64_t generation = 0;
  int rank = 0;
  std::vector<PeerInfo> peers;  // all ranks, with the pids seen from this process's pid namespace
  size_t ring_bytes = kDefaultRingBytes;
};

// Creates this rank's segment, opens everyone else's, and returns when all have done so. Errors: Peer at the
// deadline.
std::unique_ptr<Transport> make_shm_transport(const ShmGroup& group, double deadline_s);

// Equal for two processes when they can share memory and see each other's pids.
std::string shared_memory_domain();

// Removes segments that a killed run left behind (between creation and unlinking). Returns how many.
int remove_segments(const std::string& run);

}  // namespace stoker::comm
