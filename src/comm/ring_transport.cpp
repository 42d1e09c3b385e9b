#include "comm/ring_transport.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "base/clock.h"
#include "comm/byte_ring.h"
#include "comm/stream_transport.h"

namespace stoker::comm {

std::string describe(const PeerInfo& peer) {
  return fmt::format("rank {} (host {}, pid {}{}{})", peer.rank, peer.host, peer.pid,
                     peer.worker.empty() ? "" : ", ", peer.worker);
}

namespace {

constexpr double kLivenessPeriod = 0.02;
constexpr uint64_t kSegmentMagic = 0x31676553'726b7453;  // "StkrSeg1"

enum class EndState : uint32_t { kOpen = 0, kClosed = 1 };

struct SegmentHeader {
  std::atomic<uint64_t> magic;  // written last: the segment is ready
  uint64_t generation;
  uint32_t ranks;
  uint32_t ring_bytes;
  int64_t pid;
  alignas(64) std::atomic<uint32_t> doorbell;
  std::atomic<uint32_t> sleeping;
  std::atomic<uint32_t> state;   // EndState
  std::atomic<int32_t> blames;   // whom its owner held responsible when it closed; -1 nobody
  std::atomic<uint32_t> opened;  // how many peers have mapped this segment
};

void futex_wake(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE, 1, nullptr, nullptr, 0);
}
void futex_wait(std::atomic<uint32_t>* word, uint32_t seen, double seconds) {
  timespec t{static_cast<time_t>(seconds), static_cast<long>((seconds - static_cast<time_t>(seconds)) * 1e9)};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT, seen, &t, nullptr, 0);
}

// The memory of one rank: header, ring headers, ring data.
class Segment {
 public:
  static size_t bytes(int ranks, size_t ring_bytes) {
    return data_offset(ranks) + static_cast<size_t>(ranks) * ring_bytes;
  }
  Segment(std::byte* memory, int ranks, size_t ring_bytes)
      : memory_(memory), ranks_(ranks), ring_bytes_(ring_bytes) {}
  SegmentHeader& header() { return *reinterpret_cast<SegmentHeader*>(memory_); }
  ByteRing ring_from(int sender) {
    auto* rings = reinterpret_cast<ByteRing::Header*>(memory_ + rings_offset());
    return {rings + sender, memory_ + data_offset(ranks_) + static_cast<size_t>(sender) * ring_bytes_,
            ring_bytes_};
  }
  // Called by whoever moved bytes that the owner of this segment may wait for.
  void ring_doorbell() {
    header().doorbell.fetch_add(1, std::memory_order_seq_cst);
    if (header().sleeping.load(std::memory_order_seq_cst) != 0) futex_wake(&header().doorbell);
  }

 private:
  static size_t rings_offset() { return (sizeof(SegmentHeader) + 63) / 64 * 64; }
  static size_t data_offset(int ranks) {
    return rings_offset() + static_cast<size_t>(ranks) * sizeof(ByteRing::Header);
  }
  std::byte* memory_;
  int ranks_;
  size_t ring_bytes_;
};

// What differs between threads and processes: where the memory is and how death shows.
struct RingGroup {
  int rank = 0;
  std::vector<PeerInfo> peers;
  std::vector<Segment> segments;
  std::function<bool(int)> gone;  // has this peer's process ended?
  std::string kind;
  std::shared_ptr<void> memory;  // keeps the segments mapped
};

class RingTransport final : public StreamTransport {
 public:
  explicit RingTransport(RingGroup group)
      : StreamTransport(group.rank, group.peers), group_(std::move(group)), queues_(group_.peers.size()) {}
  ~RingTransport() override { close(-1); }

  std::string name() const override { return group_.kind; }

  Ticket send(int to, uint64_t tag, const void* data, size_t bytes) override {
    auto t = start(to, tag, const_cast<void*>(data), bytes);
    queues_[static_cast<size_t>(to)].sends.push_back(t);
    push(to);
    return t;
  }
  Ticket receive(int from, uint64_t tag, void* data, size_t bytes) override {
    auto t = start(from, tag, data, bytes);
    queues_[static_cast<size_t>(from)].receives.push_back(t);
    return t;
  }

  void wait(const Ticket& ticket, double deadline_s) override {
    auto& t = static_cast<StreamTransfer&>(*ticket);
    double next_check = 0;
    int idle = 0;
    while (!t.finished) {
      const uint32_t seen = mine().doorbell.load(std::memory_order_seq_cst);
      if (move()) {
        idle = 0;
        continue;
      }
      throw_if_aborted();
      const double now = monotonic_s();
      if (now >= next_check) {
        check_peer(t.peer);
        next_check = now + kLivenessPeriod;
      }
      if (now >= deadline_s) give_up(t.peer, "gave no answer before the deadline");
      if (++idle < 4) {
        std::this_thread::yield();
        continue;
      }
      mine().sleeping.store(1, std::memory_order_seq_cst);
      futex_wait(&mine().doorbell, seen, std::min(kLivenessPeriod, deadline_s - now));
      mine().sleeping.store(0, std::memory_order_relaxed);
    }
  }

  void progress() override { move(); }

  void abort(const std::string& why) override {
    if (!mark_aborted(why)) return;
    close(-1);  // rings every doorbell, this rank's own too
  }

 private:
  struct Queue {
    std::deque<std::shared_ptr<StreamTransfer>> sends, receives;
  };
  SegmentHeader& mine() { return group_.segments[static_cast<size_t>(rank())].header(); }

  bool push(int to) {
    auto& sends = queues_[static_cast<size_t>(to)].sends;
    if (sends.empty()) return false;
    ByteRing ring = group_.segments[static_cast<size_t>(to)].ring_from(rank());
    bool moved = false;
    while (!sends.empty()) {
      StreamTransfer& t = *sends.front();
      if (t.header_done < sizeof(MessageHeader)) {
        if (ring.writable() < sizeof(MessageHeader)) break;
        t.header_done = ring.write(reinterpret_cast<const std::byte*>(&t.header), sizeof(MessageHeader));
        moved = true;
      }
      const size_t n = ring.write(t.data + t.done, t.header.bytes - t.done);
      t.done += n;
      moved |= n > 0;
      if (t.done < t.header.bytes) break;
      t.finished = true;
      sends.pop_front();
    }
    if (moved) group_.segments[static_cast<size_t>(to)].ring_doorbell();
    return moved;
  }

  bool pull(int from) {
    auto& receives = queues_[static_cast<size_t>(from)].receives;
    if (receives.empty()) return false;
    ByteRing ring = group_.segments[static_cast<size_t>(rank())].ring_from(from);
    bool moved = false;
    while (!receives.empty()) {
      StreamTransfer& t = *receives.front();
      if (t.header_done < sizeof(MessageHeader)) {
        if (ring.readable() < sizeof(MessageHeader)) break;
        MessageHeader found{};
        t.header_done = ring.read(reinterpret_cast<std::byte*>(&found), sizeof found);
        moved = true;
        expect_in_step(t, found);
      }
      const size_t n = ring.read(t.data + t.done, t.header.bytes - t.done);
      t.done += n;
      moved |= n > 0;
      if (t.done < t.header.bytes) break;
      t.finished = true;
      receives.pop_front();
    }
    if (moved) group_.segments[static_cast<size_t>(from)].ring_doorbell();  // there is room again
    return moved;
  }

  bool move() {
    bool moved = false;
    for (int p = 0; p < size(); ++p) {
      if (p == rank()) continue;
      moved |= push(p);
      moved |= pull(p);
    }
    return moved;
  }

  // A peer that closed may have sent everything we wait for already: move() has run dry before we come
  // here. The one to name is a process that ended, whoever we waited for; else whom the closed peer blames.
  void check_peer(int waited_for) {
    const auto closed = [&](int p) {
      return group_.segments[static_cast<size_t>(p)].header().state.load(std::memory_order_acquire) !=
             static_cast<uint32_t>(EndState::kOpen);
    };
    const bool is_gone = group_.gone(waited_for), is_closed = closed(waited_for);
    if (!is_gone && !is_closed) return;
    if (move()) return;
    if (is_gone) give_up(waited_for, "has ended", true);
    for (int p = 0; p < size(); ++p)
      if (p != rank() && p != waited_for && group_.gone(p)) give_up(p, "has ended", true);
    const int blamed = group_.segments[static_cast<size_t>(waited_for)].header().blames.load();
    if (blamed >= 0 && blamed < size() && blamed != rank() && blamed != waited_for)
      give_up(blamed, fmt::format("did not answer rank {}, which has left the group", waited_for));
    give_up(waited_for, "has left the group");
  }

  void blame(int culprit) override { close(culprit); }

  void close(int culprit) {
    if (mine().state.load() == static_cast<uint32_t>(EndState::kClosed)) return;
    mine().blames.store(culprit);  // an abort and a failure at the same time: either is a fair account
    mine().state.store(static_cast<uint32_t>(EndState::kClosed), std::memory_order_release);
    for (Segment& segment : group_.segments) segment.ring_doorbell();
  }

  RingGroup group_;
  std::vector<Queue> queues_;
};

void prepare(SegmentHeader& header, int ranks, size_t ring_bytes, uint64_t generation) {
  header.generation = generation;
  header.ranks = static_cast<uint32_t>(ranks);
  header.ring_bytes = static_cast<uint32_t>(ring_bytes);
  header.pid = getpid();
  header.blames.store(-1);
  header.magic.store(kSegmentMagic, std::memory_order_release);
}

// ---- processes
// ------------------------------------------------------------------------------------------------------

class PidWatch {
 public:
  explicit PidWatch(int64_t pid)
      : fd_(static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0))) {}
  ~PidWatch() {
    if (fd_ >= 0) ::close(fd_);
  }
  PidWatch(const PidWatch&) = delete;
  bool gone() const {
    if (fd_ < 0) return true;
    pollfd p{fd_, POLLIN, 0};
    return ::poll(&p, 1, 0) > 0;
  }

 private:
  int fd_;
};

struct Mapping {
  std::byte* memory = nullptr;
  size_t bytes = 0;
  Mapping(int fd, size_t size) : bytes(size) {
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
      fail(ErrorKind::kDevice,
           "cannot map {} bytes of shared memory: {}. Free /dev/shm or use fewer workers.", size,
           std::generic_category().message(errno));
    memory = static_cast<std::byte*>(p);
  }
  ~Mapping() { munmap(memory, bytes); }
  Mapping(const Mapping&) = delete;
};

struct ShmMemory {
  std::vector<std::unique_ptr<Mapping>> maps;
  std::vector<std::unique_ptr<PidWatch>> pids;
};

std::string segment_name(const std::string& run, uint64_t generation, const std::string& worker) {
  return fmt::format("/stoker.{}.{}.{}", run, generation, worker);
}

struct Fd {
  int fd;
  ~Fd() {
    if (fd >= 0) ::close(fd);
  }
};

std::unique_ptr<Mapping> create_segment(const std::string& name, const ShmGroup& group, size_t bytes) {
  shm_unlink(name.c_str());  // a crashed earlier attempt of this very worker and generation
  Fd fd{shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600)};
  if (fd.fd < 0)
    fail(ErrorKind::kDevice, "cannot create shared memory {}: {}", name,
         std::generic_category().message(errno));
  // fallocate instead of ftruncate: a full /dev/shm fails here and not as SIGBUS in the middle of a step.
  if (const int e = posix_fallocate(fd.fd, 0, static_cast<off_t>(bytes)); e != 0) {
    shm_unlink(name.c_str());
    fail(ErrorKind::kDevice, "cannot reserve {} bytes in /dev/shm: {}. Enlarge it or use --transport tcp.",
         bytes, std::generic_category().message(e));
  }
  auto map = std::make_unique<Mapping>(fd.fd, bytes);
  prepare(*reinterpret_cast<SegmentHeader*>(map->memory), static_cast<int>(group.peers.size()),
          group.ring_bytes, group.generation);
  return map;
}

std::unique_ptr<Mapping> open_segment(const std::string& name, const ShmGroup& group, int r, size_t bytes,
                                      const PidWatch& pid, double deadline_s) {
  for (;;) {
    Fd fd{shm_open(name.c_str(), O_RDWR, 0)};
    struct stat status {};
    if (fd.fd >= 0 && fstat(fd.fd, &status) == 0 && static_cast<size_t>(status.st_size) == bytes) {
      auto map = std::make_unique<Mapping>(fd.fd, bytes);
      auto& header = *reinterpret_cast<SegmentHeader*>(map->memory);
      if (header.magic.load(std::memory_order_acquire) == kSegmentMagic &&
          header.generation == group.generation && header.ranks == group.peers.size() &&
          header.ring_bytes == group.ring_bytes) {
        header.opened.fetch_add(1);
        return map;
      }
    }
    const PeerInfo& peer = group.peers[static_cast<size_t>(r)];
    if (pid.gone())
      throw PeerError(r, fmt::format("{} has ended while the group was forming", describe(peer)));
    if (monotonic_s() >= deadline_s)
      throw PeerError(r, fmt::format("{} did not offer its shared memory {} in time", describe(peer), name));
    std::this_thread::sleep_for(std::chrono::microseconds(300));
  }
}

}  // namespace

std::unique_ptr<Transport> make_shm_transport(const ShmGroup& group, double deadline_s) {
  const int n = static_cast<int>(group.peers.size());
  const size_t bytes = Segment::bytes(n, group.ring_bytes);
  auto memory = std::make_shared<ShmMemory>();
  RingGroup out;
  const std::string own =
      segment_name(group.run, group.generation, group.peers[static_cast<size_t>(group.rank)].worker);
  struct Unlink {  // whatever happens from here on, the name goes
    const std::string& name;
    ~Unlink() { shm_unlink(name.c_str()); }
  };
  auto own_map = create_segment(own, group, bytes);
  Unlink unlink{own};
  SegmentHeader& header = *reinterpret_cast<SegmentHeader*>(own_map->memory);
  for (int r = 0; r < n; ++r) {
    const PeerInfo& peer = group.peers[static_cast<size_t>(r)];
    memory->pids.push_back(std::make_unique<PidWatch>(peer.pid));
    memory->maps.push_back(r == group.rank
                               ? std::move(own_map)
                               : open_segment(segment_name(group.run, group.generation, peer.worker), group,
                                              r, bytes, *memory->pids.back(), deadline_s));
    out.segments.emplace_back(memory->maps.back()->memory, n, group.ring_bytes);
  }
  while (header.opened.load() < static_cast<uint32_t>(n - 1)) {
    for (int r = 0; r < n; ++r)
      if (r != group.rank && memory->pids[static_cast<size_t>(r)]->gone())
        throw PeerError(r, fmt::format("{} has ended while the group was forming",
                                       describe(group.peers[static_cast<size_t>(r)])));
    if (monotonic_s() >= deadline_s)
      throw PeerError(-1, "not every rank of this host opened the shared memory in time");
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  out.rank = group.rank;
  out.peers = group.peers;
  out.kind = "shm";
  out.gone = [m = memory.get()](int r) { return m->pids[static_cast<size_t>(r)]->gone(); };
  out.memory = memory;
  return std::make_unique<RingTransport>(std::move(out));
}

std::string shared_memory_domain() {
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  std::string id = "unknown";
  boot >> id;
  struct stat shm {
  }, pids{};
  if (stat("/dev/shm", &shm) != 0 || stat("/proc/self/ns/pid", &pids) != 0)
    return fmt::format("{}/private/{}", id, getpid());
  return fmt::format("{}/{}/{}", id, shm.st_dev, pids.st_ino);
}

int remove_segments(const std::string& run) {
  int removed = 0;
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", ec))
    if (entry.path().filename().string().starts_with(fmt::format("stoker.{}.", run)))
      removed += std::filesystem::remove(entry.path(), ec) ? 1 : 0;
  return removed;
}

// ---- threads
// --------------------------------------------------------------------------------------------------------

struct LocalGroup::State {
  std::vector<std::byte*> memory;
  std::vector<std::atomic<bool>> gone;
  size_t ring_bytes;
  State(int n, size_t ring) : memory(static_cast<size_t>(n)), gone(static_cast<size_t>(n)), ring_bytes(ring) {
    const size_t bytes = (Segment::bytes(n, ring) + 4095) / 4096 * 4096;
    for (auto& m : memory) {
      m = static_cast<std::byte*>(std::aligned_alloc(4096, bytes));
      if (m == nullptr) throw std::bad_alloc();
      std::memset(m, 0, bytes);
      prepare(*reinterpret_cast<SegmentHeader*>(m), n, ring, 0);
    }
  }
  ~State() {
    for (auto* m : memory) std::free(m);
  }
};

LocalGroup::LocalGroup(int size, size_t ring_bytes) : state_(std::make_shared<State>(size, ring_bytes)) {}
LocalGroup::~LocalGroup() = default;
void LocalGroup::kill(int rank) { state_->gone[static_cast<size_t>(rank)] = true; }

std::unique_ptr<Transport> LocalGroup::transport(int rank) {
  RingGroup out;
  const int n = static_cast<int>(state_->memory.size());
  for (int r = 0; r < n; ++r) {
    out.segments.emplace_back(state_->memory[static_cast<size_t>(r)], n, state_->ring_bytes);
    out.peers.push_back({r, getpid(), "local", fmt::format("thread{}", r)});
  }
  out.rank = rank;
  out.kind = "memory";
  out.gone = [s = state_.get()](int r) { return s->gone[static_cast<size_t>(r)].load(); };
  out.memory = state_;
  return std::make_unique<RingTransport>(std::move(out));
}

}  // namespace stoker::comm
