#include "cli/machine_check.h"

#include <sys/resource.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>

#include "base/clock.h"
#include "base/cpu_features.h"
#include "base/progress.h"
#include "base/threads.h"
#include "io/file_system.h"
#include "tensor/buffer.h"
#include "train/peak.h"

namespace stoker::cli {
namespace {

std::string line_of(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::optional<double> number(const std::string& text) {
  double v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  return error == std::errc() ? std::optional(v) : std::nullopt;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16:
      return "avx512-bf16";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kBaseline:
      break;
  }
  return "x86-64-v2";
}

// "always [madvise] never" -> "madvise"
std::string chosen(const std::string& line) {
  const size_t open = line.find('['), close = line.find(']');
  return open == std::string::npos || close == std::string::npos ? line
                                                                 : line.substr(open + 1, close - open - 1);
}

uint64_t meminfo(const std::string& key) {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key + ":")) {
      std::istringstream rest(line.substr(key.size() + 1));
      uint64_t kib = 0;
      rest >> kib;
      return kib * 1024;
    }
  return 0;
}

// This process's group in the unified hierarchy and all above it: the tightest limit counts. A container sees its own group
// as the root. Older systems have one hierarchy per resource.
std::vector<std::string> control_groups() {
  std::vector<std::string> out = {"/sys/fs/cgroup"};
  const std::string line = line_of("/proc/self/cgroup");
  if (!line.starts_with("0::")) return out;
  for (size_t slash = line.find('/', 4); slash != std::string::npos; slash = line.find('/', slash + 1))
    out.push_back(out.front() + line.substr(3, slash - 3));
  if (line.size() > 4) out.push_back(out.front() + line.substr(3));
  return out;
}

void read_limits(Machine& m) {
  const auto tighten = [](auto& limit, auto value) {
    if (!limit || value < *limit) limit = value;
  };
  for (const std::string& group : control_groups()) {
    if (const auto bytes = number(line_of(group + "/memory.max")); bytes)
      tighten(m.memory_limit, static_cast<uint64_t>(*bytes));
    std::istringstream cpu(line_of(group + "/cpu.max"));
    std::string quota;
    double period = 0;
    if (cpu >> quota >> period && period > 0)
      if (const auto q = number(quota)) tighten(m.cpu_limit, *q / period);
  }
  if (const auto bytes = number(line_of("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
      bytes && *bytes < 1e18)
    tighten(m.memory_limit, static_cast<uint64_t>(*bytes));
  const auto quota = number(line_of("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"));
  const auto period = number(line_of("/sys/fs/cgroup/cpu/cpu.cfs_period_us"));
  if (quota && period && *quota > 0 && *period > 0) tighten(m.cpu_limit, *quota / *period);
}

double triad_bytes_per_s() {
  constexpr int64_t kCount = int64_t{1} << 24;
  const Buffer memory(3 * kCount * sizeof(float));
  auto* a = static_cast<float*>(memory.data());
  float *b = a + kCount, *c = b + kCount;
  parallel_ranges(kCount, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) a[i] = 0, b[i] = static_cast<float>(i & 7), c[i] = 2;
  });
  double best = 0;
  const double until = monotonic_s() + 0.5;
  for (int pass = 0; pass < 3 || monotonic_s() < until; ++pass) {
    const double begin_s = monotonic_s();
    parallel_ranges(kCount, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) a[i] = b[i] + 3.0f * c[i];
    });
    best = std::max(best, 3.0 * kCount * sizeof(float) / (monotonic_s() - begin_s));
  }
  return best;
}

void measure_disk(const std::string& directory, Speeds& s) {
  io::FileSystem& fs = io::real_file_system();
  constexpr size_t kChunk = size_t{4} << 20, kChunks = 32;
  const std::string path = io::join(directory, fmt::format(".stoker-doctor-{}", getpid()));
  struct Remove {
    io::FileSystem& fs;
    const std::string& path;
    ~Remove() {
      try {
        fs.remove(path);
      } catch (const Error&) {
      }
    }
  };
  try {
    s.disk_free_bytes = fs.free_bytes(directory);
    if (s.disk_free_bytes < 4 * kChunk * kChunks) {
      s.disk_error = "too little space left to measure";
      return;
    }
    std::string chunk(kChunk, '\0');
    for (size_t i = 0; i < kChunk; ++i) chunk[i] = static_cast<char>(i * 2654435761u >> 13);
    const auto file = fs.create(path);
    const Remove at_end{fs, path};
    const double begin = monotonic_s();
    for (size_t i = 0; i < kChunks; ++i) file->append(chunk);
    file->sync();
    s.disk_write_bytes_per_s = static_cast<double>(kChunk * kChunks) / (monotonic_s() - begin);
    std::vector<double> syncs;
    for (uint64_t i = 0; i < 9; ++i) {
      const double from = monotonic_s();
      file->write_at(i * 4096, chunk.data(), 4096);
      file->sync();
      syncs.push_back(monotonic_s() - from);
    }
    std::nth_element(syncs.begin(), syncs.begin() + 4, syncs.end());
    s.sync_s = syncs[4];
  } catch (const Error& e) {
    s.disk_error = e.what();
  }
}

}  // namespace

Machine look() {
  Machine m;
  m.cpu = cpu_name();
  m.isa = isa_name(cpu_isa());
  m.threads = compute_threads();
  m.memory_bytes =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  m.available_bytes = meminfo("MemAvailable");
  m.clock_source = line_of("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  m.huge_pages = chosen(line_of("/sys/kernel/mm/transparent_hugepage/enabled"));
  m.governor = line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  double load[1] = {0};
  if (getloadavg(load, 1) == 1) m.load = load[0];
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) m.open_files_limit = files.rlim_cur;
  timex clock{};
  const int state = adjtimex(&clock);
  if (state >= 0) m.clock_synchronized = state != TIME_ERROR && !(clock.status & STA_UNSYNC);
  read_limits(m);
  return m;
}

Speeds measure(const std::string& directory) {
  Speeds s;
  s.memory_bytes_per_s = triad_bytes_per_s();
  ops::Context context;  // the ceiling that training measures itself against
  s.fp32_flops = train::measure_peak(context, Precision::kFp32, 1.2);
  s.bf16_flops = train::measure_peak(context, Precision::kBf16, 1.2);
  measure_disk(directory, s);
  return s;
}

std::vector<std::string> warnings(const Machine& m, const std::optional<Speeds>& s) {
  std::vector<std::string> out;
  const auto warn = [&]<typename... Args>(fmt::format_string<Args...> format, Args&&... args) {
    out.push_back(fmt::format(format, std::forward<Args>(args)...));
  };
  if (m.isa == std::string("x86-64-v2"))
    warn(
        "The processor has no AVX2, or STOKER_ISA forbids it: training runs several times slower. Use "
        "another machine, or unset STOKER_ISA.");
  if (m.load > 0.5 * m.threads)
    warn(
        "Load is {:.1f} on {} threads: other programs are computing. Measurements and training suffer; wait "
        "or stop them.",
        m.load, m.threads);
  if (m.cpu_limit && *m.cpu_limit < m.threads - 0.01)
    warn(
        "The control group allows {:.2f} processors but {} threads would run and be paused in turn. Start "
        "with OMP_NUM_THREADS={}.",
        *m.cpu_limit, m.threads, std::max(1, static_cast<int>(*m.cpu_limit)));
  if (m.memory_limit && *m.memory_limit < m.memory_bytes)
    warn(
        "The control group allows {} of the machine's {}: a run beyond that is killed. Compare with stoker "
        "train --dry-run.",
        human_bytes(static_cast<double>(*m.memory_limit)), human_bytes(static_cast<double>(m.memory_bytes)));
  if (m.available_bytes && m.available_bytes < m.memory_bytes / 4)
    warn("Only {} of {} memory is free. Stop what holds it, or train a smaller model.",
         human_bytes(static_cast<double>(m.available_bytes)),
         human_bytes(static_cast<double>(m.memory_bytes)));
  if (m.huge_pages == "never")
    warn(
        "Transparent huge pages are off: memory-bound steps lose up to a tenth. As root: echo madvise > "
        "/sys/kernel/mm/transparent_hugepage/enabled");
  if (!m.governor.empty() && m.governor == "powersave")
    warn("The frequency governor is powersave. As root: cpupower frequency-set -g performance");
  if (m.open_files_limit && m.open_files_limit < 1024)
    warn("Only {} files may be open at once: many data shards need more. ulimit -n 65536",
         m.open_files_limit);
  if (m.clock_synchronized && !*m.clock_synchronized)
    warn(
        "The clock is not kept by a time service: logs of several machines will not line up. Install chrony "
        "or "
        "systemd-timesyncd.");
  if (!m.clock_source.empty() && m.clock_source != "tsc" && m.clock_source != "kvm-clock" &&
      m.clock_source != "arch_sys_counter")
    warn(
        "The clock source is {}: reading the time is slow, so step times are less exact. Boot with tsc where "
        "the machine allows it.",
        m.clock_source);
  if (!s) return out;
  if (!s->disk_error.empty()) warn("The disk was not measured: {}", s->disk_error);
  if (s->disk_write_bytes_per_s > 0 && s->disk_write_bytes_per_s < 100e6)
    warn("The disk takes {}/s: a checkpoint of 1.5 GB needs {}. Save less often or to a faster disk.",
         human_bytes(s->disk_write_bytes_per_s), human_duration(1.5e9 / s->disk_write_bytes_per_s));
  if (s->disk_free_bytes && s->disk_free_bytes < uint64_t{10} * 1000 * 1000 * 1000)
    warn("Only {} are free on the disk: checkpoints of a 124 M model take 1.5 GB each. Free some space.",
         human_bytes(static_cast<double>(s->disk_free_bytes)));
  if (s->bf16_flops > 0 && s->bf16_flops < 1.1 * s->fp32_flops)
    warn(
        "bf16 products are no faster than fp32 here (the processor has no bf16 instructions): train with "
        "precision = \"fp32\".");
  return out;
}

}  // namespace stoker::cli
