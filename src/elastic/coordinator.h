// elastic/coordinator.h
// The coordinator of one run: Membership behind gRPC. One per run; it holds no tensors and the run goes on
// without it, so it may die, come back on the same address with the same state file, or be started again
// elsewhere by its supervisor (workers find the new address in RUN/coordinator). Files        state_file:
// membership, replaced atomically at each change. events_file: one JSON line per event, appended Security
// every call needs the token; TLS beyond loopback (net/rpc.h) Errors       Usage: address in use or not ours,
// bad token. Storage: the state cannot be written (the run goes on)
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "elastic/membership.h"
#include "net/rpc.h"

namespace stoker::elastic {

struct CoordinatorConfig {
  MembershipConfig membership;
  net::Address listen{"127.0.0.1", 0};  // port 0: any
  net::Tls tls = net::Tls::kAuto;
  std::string token;
  std::string state_file, events_file;  // empty: none
  // Asked before every permission to commit a checkpoint: who has taken over? Empty: nobody.
  std::function<std::string()> successor;
  // Told of events in order, on the thread that writes the files: it may be slow, and must not call the coordinator.
  std::function<void(const std::vector<Event>&)> observe;
  std::map<std::string, std::string> values;  // preset shared values: the command that joiners run
};

class Coordinator {
 public:
  explicit Coordinator(CoordinatorConfig config);
  ~Coordinator();  // ends every call
  Coordinator(const Coordinator&) = delete;
  net::Address address() const;  // with the port in use
  bool finished() const;
  // Another coordinator holds the run: from here on every call is answered with "fenced" and no checkpoint is allowed.
  void retire(const std::string& why);
  void stop(const std::string& why);  // the run saves and ends
  bool nobody_left() const;           // the run has begun and every worker is gone

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace stoker::elastic
