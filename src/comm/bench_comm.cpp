#include "comm/bench_comm.h"

#include <gloo/allreduce.h>
#include <gloo/allreduce_halving_doubling.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <span>

#include "base/clock.h"
#include "comm/communicator.h"
#include "comm/gloo_transport.h"
#include "comm/ring_transport.h"
#include "comm/tcp_transport.h"

namespace stoker::comm {
namespace {

constexpr int kMethods = 6, kPlainMethods = 3;
struct ChildReport {
  std::array<double, kMethods> median_s{};
  int rounds = 0;
  int same_bits = 0;
};

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

float leaf_value(int leaf, size_t i) {
  return 1.0f / static_cast<float>(1 + (i * 31 + static_cast<size_t>(leaf) * 17) % 1009);
}

struct Bench {
  std::string directory;
  const CommBenchOptions& options;
  int rank, workers;
  size_t elements;
  std::vector<PeerInfo> peers;

  std::shared_ptr<gloo::Context> plain_context() {
    gloo::transport::tcp::attr attribute;
    attribute.hostname = "127.0.0.1";
    auto device = gloo::transport::tcp::CreateDevice(attribute);
    gloo::rendezvous::FileStore store(directory + "/plain");
    auto context = std::make_shared<gloo::rendezvous::Context>(rank, workers);
    context->setTimeout(std::chrono::seconds(120));
    context->connectFullMesh(store, device);
    return context;
  }

  ChildReport run() {
    const double deadline = monotonic_s() + 60;
    auto rendezvous = make_file_rendezvous(directory);
    auto direct = make_communicator(
        make_tcp_transport({"direct", rank, peers, "127.0.0.1", "bench"}, *rendezvous, deadline), 1, 120);
    auto over_gloo = make_communicator(
        make_gloo_transport({"tree", rank, peers, "127.0.0.1"}, *rendezvous, deadline), 1, 120);
    auto shm = make_communicator(
        make_shm_transport({fmt::format("bench{}", peers[0].pid), 1, rank, peers, kDefaultRingBytes},
                           deadline),
        1, 120);
    auto plain = plain_context();

    const auto spans = even_spans(workers, options.virtual_ranks);
    const auto own = complete_subtrees(spans[static_cast<size_t>(rank)], options.virtual_ranks);
    std::vector<std::vector<float>> parts(own.size(), std::vector<float>(elements));
    std::vector<float*> partials;
    for (auto& p : parts) partials.push_back(p.data());
    std::vector<float> data(elements);
    float* buffer = data.data();
    gloo::AllreduceHalvingDoubling<float> halving(plain, {buffer}, static_cast<int>(elements));
    const auto gloo_new = [&](gloo::detail::AllreduceOptionsImpl::Algorithm algorithm, uint32_t tag) {
      gloo::AllreduceOptions o(plain);
      o.setAlgorithm(algorithm);
      o.setOutput(buffer, elements);
      o.setTag(tag);
      o.setReduceFunction(
          [](void* a, const void* b, const void* c, size_t n) { gloo::sum<float>(a, b, c, n); });
      gloo::allreduce(o);
    };
    const auto fill = [&] {
      for (size_t p = 0; p < own.size(); ++p)
        for (size_t i = 0; i < elements; ++i) parts[p][i] = leaf_value(own[p].begin, i);
    };
    // In place, as gloo's are.
    float* in_place = partials.empty() ? buffer : partials.front();
    const std::array<std::function<void()>, kMethods> methods{
        [&] { gloo_new(gloo::detail::AllreduceOptionsImpl::RING, 1); },
        [&] { halving.run(); },
        [&] { gloo_new(gloo::detail::AllreduceOptionsImpl::BCUBE, 2); },
        [&] { over_gloo->tree_all_reduce(partials, elements, spans, in_place); },
        [&] { direct->tree_all_reduce(partials, elements, spans, in_place); },
        [&] { shm->tree_all_reduce(partials, elements, spans, in_place); },
    };
    ChildReport report;
    report.same_bits = check_bits({over_gloo.get(), direct.get(), shm.get()}, fill, partials, spans, data);
    std::array<std::vector<double>, kMethods> times;
    const double end = monotonic_s() + options.seconds_per_row;
    for (int round = 0;; ++round) {
      std::vector<int64_t> more{rank == 0 && (round < 4 || monotonic_s() < end) ? 1 : 0};
      shm->all_reduce(std::span(more), Reduce::kMax);
      if (more[0] == 0) break;
      for (int m = 0; m < kMethods; ++m) {
        std::fill_n(m < kPlainMethods ? buffer : in_place, elements, 1.0f);
        shm->barrier();
        const double start = monotonic_s();
        methods[static_cast<size_t>(m)]();
        std::vector<double> took{monotonic_s() - start};
        shm->all_reduce(std::span(took), Reduce::kMax);
        if (round > 0) times[static_cast<size_t>(m)].push_back(took[0]);  // round 0 touches the memory
      }
      report.rounds = round;
    }
    for (size_t m = 0; m < kMethods; ++m) report.median_s[m] = median(times[m]);
    return report;
  }

  // Against the tree folded in this process from all subtrees.
  int check_bits(std::initializer_list<Communicator*> all_kinds, const std::function<void()>& fill,
                 const std::vector<float*>& partials, std::span<const LeafSpan> spans,
                 std::vector<float>& data) {
    std::vector<LeafSpan> all;
    for (const LeafSpan& s : spans) {
      const auto nodes = complete_subtrees(s, options.virtual_ranks);
      all.insert(all.end(), nodes.begin(), nodes.end());
    }
    const auto folds = fold_plan(all, options.virtual_ranks);
    int64_t same = 1;
    for (Communicator* c : all_kinds) {
      fill();
      c->tree_all_reduce(partials, elements, spans, data.data());
      std::vector<float> slots(all.size());
      for (size_t i = 0; i < elements; i += 97) {  // every 97th element, so that the check stays short
        for (size_t p = 0; p < all.size(); ++p) slots[p] = leaf_value(all[p].begin, i);
        for (const Fold& f : folds) slots[static_cast<size_t>(f.into)] += slots[static_cast<size_t>(f.from)];
        same &= std::memcmp(&slots[0], &data[i], sizeof(float)) == 0;
      }
    }
    std::vector<int64_t> flag{same};
    (*all_kinds.begin())->all_reduce(std::span(flag), Reduce::kMin);
    return static_cast<int>(flag[0]);
  }
};

CommBenchRow run_row(const CommBenchOptions& options, int workers, size_t bytes) {
  const auto directory = std::filesystem::temp_directory_path() / fmt::format("stoker_bench_{}", getpid());
  std::filesystem::remove_all(directory);
  std::filesystem::create_directories(directory / "plain");
  int start[2], result[2];
  if (pipe(start) != 0 || pipe(result) != 0)
    fail(ErrorKind::kDevice, "no pipes left for the benchmark's workers");
  std::vector<pid_t> pids;
  for (int r = 0; r < workers; ++r) {
    const pid_t pid = fork();
    if (pid < 0) fail(ErrorKind::kDevice, "cannot start worker {} of {}", r, workers);
    if (pid == 0) {
      std::vector<pid_t> all(static_cast<size_t>(workers));
      const auto size = static_cast<ssize_t>(all.size() * sizeof(pid_t));
      int code = 1;
      if (read(start[0], all.data(), static_cast<size_t>(size)) == size) {
        try {
          Bench bench{directory.string(), options, r, workers, bytes / sizeof(float), {}};
          for (int i = 0; i < workers; ++i)
            bench.peers.push_back({i, all[static_cast<size_t>(i)], "local", fmt::format("w{}", i)});
          const ChildReport report = bench.run();
          code = r != 0 || write(result[1], &report, sizeof report) == sizeof report ? 0 : 1;
        } catch (const std::exception& e) {
          fmt::print(stderr, "stoker: bench worker {}: {}\n", r, e.what());
        }
      }
      _exit(code);
    }
    pids.push_back(pid);
  }
  for (int r = 0; r < workers; ++r)
    if (write(start[1], pids.data(), pids.size() * sizeof(pid_t)) < 0) break;
  close(result[1]);
  ChildReport report;
  const bool got = read(result[0], &report, sizeof report) == sizeof report;
  for (pid_t pid : pids) waitpid(pid, nullptr, 0);
  for (int fd : {start[0], start[1], result[0]}) close(fd);
  std::filesystem::remove_all(directory);
  if (!got) fail(ErrorKind::kPeer, "a benchmark worker failed; its reason is above");
  CommBenchRow row;
  row.workers = workers;
  row.bytes = bytes;
  row.rounds = report.rounds;
  row.gloo_ring_s = report.median_s[0];
  row.gloo_halving_s = report.median_s[1];
  row.gloo_bcube_s = report.median_s[2];
  row.tree_gloo_s = report.median_s[3];
  row.tree_tcp_s = report.median_s[4];
  row.tree_shm_s = report.median_s[5];
  row.same_bits = report.same_bits != 0;
  return row;
}

}  // namespace

double CommBenchRow::plain_s() const { return std::min({gloo_ring_s, gloo_halving_s, gloo_bcube_s}); }

std::vector<CommBenchRow> run_comm_bench(const CommBenchOptions& options,
                                         const std::function<void(const CommBenchRow&)>& each) {
  for (int n : options.workers)
    if (n < 2 || n > 64) fail(ErrorKind::kUsage, "bench comm: expected 2 to 64 workers, found {}", n);
  for (size_t b : options.bytes)
    if (b < sizeof(float) || b > (size_t{4} << 30))
      fail(ErrorKind::kUsage, "bench comm: expected 4 bytes to 4 GiB, found {}", b);
  std::vector<CommBenchRow> rows;
  for (int n : options.workers)
    for (size_t b : options.bytes) {
      rows.push_back(run_row(options, n, b));
      each(rows.back());
    }
  return rows;
}

}  // namespace stoker::comm
