// elastic/wire.h
// What the coordinator and its callers must say alike (elastic/coordinator.proto). Internal to the room.
#pragma once
#include "elastic/coordinator.pb.h"
#include "elastic/membership.h"

namespace stoker::elastic {

constexpr double kGateAnswer_s =
    5;  // the coordinator answers a gate call "again" after this, so that a dead client is noticed
constexpr double kGateCall_s = 8;  // how long its caller waits for that

inline void to_wire(const WorkerInfo& in, wire::WorkerInfo* out) {
  out->set_worker(in.worker);
  out->set_host(in.host);
  out->set_pid(in.pid);
  out->set_address(in.address);
  out->set_memory_domain(in.memory_domain);
}

}  // namespace stoker::elastic
