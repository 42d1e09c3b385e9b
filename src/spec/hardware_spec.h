// spec/hardware_spec.h
// What a cluster is, as plain numbers: one kind of accelerator, how many, and the networks between them by
// level. Figures are the maker's dense peaks; what of them is achievable is the planner's knowledge
// (catalog/), not a property of the machine.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/units.h"
#include "spec/run_spec.h"

namespace stoker {

struct AcceleratorSpec {
  std::string name;                           // "H100-SXM"
  std::string family;                         // efficiency curves are shared by family: "H100"
  FlopsPerSecond fp32, fp16, bf16, fp8, fp4;  // dense peak; 0: not supported
  Bytes memory;
  BytesPerSecond memory_bandwidth;
  Watts power;  // of the accelerator at full load
  FlopsPerSecond peak(Precision precision) const;
};

// A level joins accelerators closer than the next one: NVLink-class inside a node, InfiniBand/Ethernet-class
// between nodes, WAN between sites. `bandwidth` is per accelerator and direction.
struct NetworkLevel {
  std::string name;
  int64_t accelerators = 1;  // joined by this level; 0 on the last: unlimited
  BytesPerSecond bandwidth;
  Seconds latency;
};

struct HardwareSpec {
  AcceleratorSpec accelerator;
  int64_t accelerators = 1;  // in total
  int64_t accelerators_per_node = 8;
  std::vector<NetworkLevel> levels;  // innermost first; empty for a single accelerator
  int64_t nodes() const { return (accelerators + accelerators_per_node - 1) / accelerators_per_node; }
};

void validate(const HardwareSpec& hardware);  // Usage: the field, its value, what would be valid

}  // namespace stoker
