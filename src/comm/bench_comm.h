// comm/bench_comm.h
// What exactness costs: the canonical tree sum against the fastest plain all-reduce that gloo has, on the
// same bytes, between real processes of this machine, rounds interleaved so that a busy machine hurts both
// alike. Cost         forks workers-1 .. processes per row; call before any thread exists
#pragma once
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace stoker::comm {

struct CommBenchOptions {
  std::vector<int> workers{2, 4, 8};
  std::vector<size_t> bytes{25'000'000, 250'000'000};
  int virtual_ranks = 8;
  double seconds_per_row = 4;  // at least three rounds are run whatever it says
};

struct CommBenchRow {
  int workers = 0;
  size_t bytes = 0;
  int rounds = 0;
  // medians over rounds of the slowest rank's time
  double gloo_ring_s = 0, gloo_halving_s = 0, gloo_bcube_s = 0, tree_gloo_s = 0, tree_tcp_s = 0,
         tree_shm_s = 0;
  bool same_bits = false;  // tree over gloo and over shared memory gave the single-process bits on every rank
  double plain_s() const;
  double ratio_gloo() const { return tree_gloo_s / plain_s(); }
  double ratio_tcp() const { return tree_tcp_s / plain_s(); }
  double ratio_shm() const { return tree_shm_s / plain_s(); }
};

std::vector<CommBenchRow> run_comm_bench(const CommBenchOptions& options,
                                         const std::function<void(const CommBenchRow&)>& each);

}  // namespace stoker::comm
