// Faults on request, for `stoker chaos` alone: the trainer obeys one-line files in RUN/chaos, named after workers.
#include <chrono>
#include <thread>

#include "base/clock.h"
#include "io/atomic_write.h"
#include "train/trainer.h"

namespace stoker::train {
namespace {

constexpr double kLimp_s = 10;    // "slow" lasts so long, or until "calm"
constexpr double kDelay_s = 4;    // a message that comes after every deadline of a small model
constexpr uint64_t kFullFor = 2;  // operations that fail: fewer than the writer's tries

}  // namespace

void Trainer::inject_chaos() {
  if (!hooks_.chaos) return;
  const std::string path = fmt::format("{}/chaos/{}", recipe_.run_dir, team_->worker());
  io::FileSystem& real = io::real_file_system();
  if (!real.exists(path)) return;
  const std::string what = io::read_text(real, path, 4096);
  real.remove(path);
  const auto is = [&](std::string_view kind) { return what.starts_with(kind); };
  if (is("flip-weights") && share_) {
    const auto own = share_->holdings().owned(mesh_.shards(), mesh_.shard());
    if (shards_values() && !own.empty()) {
      *reinterpret_cast<uint8_t*>(optimizer_->value(own.front())) ^= 0x10;
    } else {
      const TensorView values = share_->store().values();
      static_cast<uint8_t*>(values.data)[values.bytes() / 3] ^= 0x10;
    }
  }
  if (is("flip-gradients")) flip_gradients_ = share_ != nullptr;
  if (is("flip-shard") && share_) share_->flip_once();
  if (is("half-open")) team_->arm({comm::FaultKind::kHalfOpen, 0, 0, 0});
  if (is("drop")) team_->arm({comm::FaultKind::kDrop, 0, 0, 0});
  if (is("delay")) team_->arm({comm::FaultKind::kDelay, 0, kDelay_s, 0});
  if (is("slow")) limp_until_s_ = monotonic_s() + kLimp_s;
  if (is("calm")) limp_until_s_ = 0;
  if (is("disk-full") && hooks_.faulty != nullptr)
    hooks_.faulty->arm(io::Fault::kFullDisk, hooks_.faulty->operations(), kFullFor,
                       what.ends_with("checkpoints\n") ? "/checkpoints/" : "/ledger");
}

// Where it matters: in the first block whose update this rank makes.
void Trainer::flip_gradient_sum() {
  const int64_t n = mesh_.shards();
  for (const parallel::HeldFold& fold : share_->holdings().folds())
    for (const int64_t worker : {int64_t{mesh_.shard()}, (mesh_.shard() + n - 1) % n})
      for (const parallel::HeldBlock& block : share_->holdings().owned_blocks(fold, n, worker)) {
        *reinterpret_cast<uint8_t*>(gradient_sum(block, block.size)) ^= 0x10;
        return;
      }
}

// Half speed.
void Trainer::limp(double computed_s) {
  if (monotonic_s() < limp_until_s_) std::this_thread::sleep_for(std::chrono::duration<double>(computed_s));
}

}  // namespace stoker::train
