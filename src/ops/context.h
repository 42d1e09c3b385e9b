// ops/context.h
// Carries what every op needs besides its tensors: which candidate to use, scratch memory, and where time
// is written.
// Candidates   per op an ordered list, fastest first; the first that does not refuse runs; `ref` is last
//              and always accepts. force("norm_forward=ref") pins one (Usage error when it refuses or the
//              op or candidate is unknown). The first choice per op is kept with the reasons of those that refused:
//              choices().
// Time         every op adds its wall time to its phase: op_times(); the step anatomy is made of it.
// Devices      an op runs where its tensors are: on a CUDA device the CUDA candidates are asked instead,
//              on this Context's stream; an op without any there fails and says so (Device). Times are
//              then of the launch alone.
// Threads      a Context serves one thread at a time; ops spread over base/threads.h.
// Determinism  an op's result depends on its arguments, the candidate and compute_threads(), never on time
//              or earlier calls.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "ops/device_of.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"

namespace stoker::ops {

enum class Accumulate { kOverwrite, kAdd };

template <typename Args>
struct Candidate {
  std::string_view name;
  std::string (*refuse)(const Args&);  // empty: accepts
  void (*run)(class Context&, const Args&);
};

struct Choice {
  std::string op, candidate;
  std::vector<std::string> refusals;  // "avx512: head_dim 20 is not a multiple of 16"
};

struct OpTime {
  double seconds = 0;
  int64_t calls = 0;
};

class Context {
 public:
  Context();
  ~Context();
  Context(const Context&) = delete;

  // "op=candidate[,op=candidate]"; throws Usage when malformed or when there is no such op.
  void force(std::string_view choices);
  const std::map<std::string, Choice, std::less<>>& choices() const { return choices_; }

  // Memory for one op call, at least `bytes`, 64-byte aligned; valid until the next call of scratch().
  void* scratch(size_t bytes);

  const std::map<std::string, OpTime, std::less<>>& op_times() const { return times_; }
  void reset_times() { times_.clear(); }
  void add_time(std::string_view op, double seconds);

  Stream stream() const { return stream_; }  // where CUDA candidates queue their work
  void set_stream(Stream stream) { stream_ = stream; }

  template <typename Args>
  void run(std::string_view op, std::span<const Candidate<Args>> candidates, const Args& args,
           std::span<const Candidate<Args>> cuda_candidates = {}) {
    const double begin = monotonic_s();
    const Device device = device_of(args);
    pick(op, device, device.kind == DeviceKind::kCuda ? cuda_candidates : candidates, args).run(*this, args);
    add_time(op, monotonic_s() - begin);
  }

  // State that a candidate keeps between calls (oneDNN's compiled primitives). One of each type.
  struct Cache {
    virtual ~Cache() = default;
  };
  template <typename T>
  T& cache() {
    for (auto& c : caches_)
      if (auto* found = dynamic_cast<T*>(c.get())) return *found;
    return static_cast<T&>(*caches_.emplace_back(std::make_unique<T>()));
  }

 private:
  template <typename Args>
  const Candidate<Args>& pick(std::string_view op, Device device, std::span<const Candidate<Args>> candidates,
                              const Args& args) {
    const auto forced = forced_.find(op);
    std::vector<std::string> refusals;
    for (const Candidate<Args>& c : candidates) {
      if (forced != forced_.end() && forced->second != c.name) continue;
      std::string reason = c.refuse ? c.refuse(args) : std::string();
      if (reason.empty()) {
        if (choices_.find(op) == choices_.end())
          choices_.emplace(std::string(op), Choice{std::string(op), std::string(c.name), refusals});
        return c;
      }
      refusals.push_back(std::string(c.name) + ": " + reason);
    }
    no_candidate(op, device, refusals);
  }
  [[noreturn]] void no_candidate(std::string_view op, Device device,
                                 const std::vector<std::string>& refusals) const;

  std::map<std::string, std::string, std::less<>> forced_;
  std::map<std::string, Choice, std::less<>> choices_;
  std::map<std::string, OpTime, std::less<>> times_;
  std::vector<std::unique_ptr<Cache>> caches_;
  Buffer scratch_;
  Stream stream_;
};

}  // namespace stoker::ops
