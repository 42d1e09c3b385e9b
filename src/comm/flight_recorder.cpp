#include "comm/flight_recorder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <system_error>
#include <type_traits>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"

namespace stoker::comm {

struct FlightRecorder::Layout {
  uint64_t magic;
  int64_t pid;
  uint64_t generation;
  int64_t step;
  double phase_since_s;
  int32_t rank;
  uint32_t capacity;
  char phase[16];
  std::atomic<uint64_t> count;  // calls ever begun
  CallRecord calls[kCalls];

  static constexpr uint64_t kMagic = 0x31746867'696c4653;
};

namespace {
void copy_text(char* to, size_t size, std::string_view text) {
  const size_t n = std::min(size - 1, text.size());
  std::memcpy(to, text.data(), n);
  std::memset(to + n, 0, size - n);
}
std::string_view bounded(const char* text, size_t size) { return {text, strnlen(text, size)}; }
}  // namespace

std::string_view CallRecord::call() const { return bounded(name.data(), name.size()); }
bool CallRecord::is_collective() const {
  return call() != "send" && call() != "receive" && call() != "await";
}

FlightRecorder::FlightRecorder() : layout_(new Layout{}), mapped_(false) {
  layout_->magic = Layout::kMagic;
  layout_->pid = getpid();
  layout_->rank = -1;
  layout_->step = -1;
  layout_->capacity = kCalls;
}

FlightRecorder::FlightRecorder(const std::string& path) : layout_(nullptr), mapped_(true) {
  const int fd = open(path.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644);
  const auto broken = [&](const char* what) {
    const int e = errno;
    if (fd >= 0) close(fd);
    fail(ErrorKind::kStorage, "cannot {} flight record {}: {}", what, path,
         std::generic_category().message(e));
  };
  if (fd < 0) broken("create");
  if (const int e = posix_fallocate(fd, 0, sizeof(Layout)); e != 0) errno = e, broken("reserve");
  void* memory = mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) broken("map");
  close(fd);
  layout_ = new (memory) Layout{};
  layout_->magic = Layout::kMagic;
  layout_->pid = getpid();
  layout_->rank = -1;
  layout_->step = -1;
  layout_->capacity = kCalls;
}

FlightRecorder::~FlightRecorder() {
  if (mapped_) munmap(layout_, sizeof(Layout));
  else delete layout_;
}

void FlightRecorder::place(int rank, uint64_t generation) {
  layout_->rank = rank;
  layout_->generation = generation;
}
void FlightRecorder::phase(std::string_view name, int64_t step) {
  layout_->step = step;
  layout_->phase_since_s = system_clock().unix_s();
  copy_text(layout_->phase, sizeof layout_->phase, name);
}
void FlightRecorder::begin(uint64_t sequence, std::string_view name, uint64_t bytes) {
  const uint64_t n = layout_->count.load(std::memory_order_relaxed);
  CallRecord& call = layout_->calls[n % kCalls];
  call = CallRecord{sequence, bytes, system_clock().unix_s(), 0, CallState::kRunning, -1, {}};
  copy_text(call.name.data(), call.name.size(), name);
  layout_->count.store(n + 1, std::memory_order_release);
}
void FlightRecorder::waiting_on(int rank) {
  const uint64_t n = layout_->count.load(std::memory_order_relaxed);
  if (n > 0) layout_->calls[(n - 1) % kCalls].waiting_on = rank;
}
void FlightRecorder::end(CallState state, int culprit) {
  const uint64_t n = layout_->count.load(std::memory_order_relaxed);
  if (n == 0) return;
  CallRecord& call = layout_->calls[(n - 1) % kCalls];
  call.took_s = system_clock().unix_s() - call.started_s;
  call.waiting_on = culprit;
  call.state = state;
}
std::span<const std::byte> FlightRecorder::bytes() const {
  return {reinterpret_cast<const std::byte*>(layout_), sizeof(Layout)};
}
FlightRecord FlightRecorder::snapshot() const { return parse_flight_record(layout_, sizeof(Layout)); }

FlightRecord parse_flight_record(const void* data, size_t bytes) {
  using Layout = FlightRecorder::Layout;
  static_assert(std::is_trivially_copyable_v<CallRecord>);
  if (bytes != sizeof(Layout))
    fail(ErrorKind::kData, "not a flight record: expected {} bytes, found {}", sizeof(Layout), bytes);
  auto copy = std::make_unique<std::byte[]>(sizeof(Layout));
  std::memcpy(copy.get(), data, sizeof(Layout));
  const auto& in = *reinterpret_cast<const Layout*>(copy.get());
  if (in.magic != Layout::kMagic || in.capacity != FlightRecorder::kCalls)
    fail(ErrorKind::kData,
         "not a flight record: magic or capacity differ. It was written by another version.");
  FlightRecord out;
  out.pid = in.pid;
  out.rank = in.rank;
  out.generation = in.generation;
  out.step = in.step;
  out.phase_since_s = in.phase_since_s;
  out.phase = bounded(in.phase, sizeof in.phase);
  const uint64_t count = in.count.load(std::memory_order_acquire);
  const uint64_t kept = std::min<uint64_t>(count, FlightRecorder::kCalls);
  for (uint64_t i = count - kept; i < count; ++i) out.calls.push_back(in.calls[i % FlightRecorder::kCalls]);
  return out;
}

FlightRecord read_flight_record(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) fail(ErrorKind::kStorage, "cannot open flight record {}", path);
  const std::string data{std::istreambuf_iterator<char>(in), {}};
  return parse_flight_record(data.data(), data.size());
}

std::string last_call(const FlightRecord& record, double now_unix_s) {
  if (record.calls.empty()) return "before any collective";
  const CallRecord& call = record.calls.back();
  // Messages between two ranks are numbered on no other: only collectives have a number that says anything.
  const std::string size = human_bytes(static_cast<double>(call.bytes));
  const std::string what = call.is_collective() ? fmt::format("{} #{} ({})", call.call(), call.sequence, size)
                           : call.bytes > 0     ? fmt::format("{} ({})", call.call(), size)
                                                : std::string(call.call());
  switch (call.state) {
    case CallState::kRunning:
      return call.waiting_on >= 0 ? fmt::format("in {}, waiting on rank {} for {:.1f} s", what,
                                                call.waiting_on, now_unix_s - call.started_s)
                                  : fmt::format("in {} for {:.1f} s", what, now_unix_s - call.started_s);
    case CallState::kFailed:
      return fmt::format("failed in {}", what);
    case CallState::kDone:
      break;
  }
  return fmt::format("after {}", what);
}

}  // namespace stoker::comm
