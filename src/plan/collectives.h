// plan/collectives.h
// Time of collectives by algorithm, size and level: latency per doubling of the group plus bytes over the
// slowest link's share.   t = start * log2(n) + hop * (domains - 1) + moved / bandwidth
// Groups      n ranks that stand `stride` apart. Those in one fast domain use its links; a group that spans
//             domains with g members in each has g times one accelerator's link to the outside (ring or tree
//             over domains with a reduce inside first), never more than the inside.
// Numbers     bandwidths are the achievable ones, per accelerator and direction.
#pragma once
#include <cstdint>

#include "base/units.h"

namespace stoker::plan {

struct Fabric {
  double inside = 1e9, between = 1e9;  // bytes per second
  int64_t domain = 8;                  // accelerators that the inside level joins; 0: all
  double start = 1e-5;                 // seconds per doubling
  double hop = 3e-6;                   // seconds per domain that a gather's ring passes
};

struct Group {
  int64_t ranks = 1, stride = 1;
};

double all_reduce_seconds(const Fabric& fabric, Group group, double bytes);
double all_gather_seconds(const Fabric& fabric, Group group, double total_bytes);  // or reduce-scatter
struct AllToAll {
  double inside = 0, between = 0;  // seconds of each level
};
// Each rank sends every one of its tokens to `copies` ranks of the group, evenly spread. Between domains a token
// travels once to each domain that wants it, and is handed on inside, as the exchanges of experts do.
AllToAll all_to_all_seconds(const Fabric& fabric, Group group, double bytes_of_one_copy, double copies);
double send_seconds(const Fabric& fabric, int64_t distance, double bytes);
bool spans_domains(const Fabric& fabric, Group group);

}  // namespace stoker::plan
