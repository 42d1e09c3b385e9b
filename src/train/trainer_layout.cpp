// The trainer's place in the layout: what it holds there, how gradients are summed and values shared.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "train/trainer.h"

namespace stoker::train {
namespace {

std::span<std::byte> float_bytes(float* data, size_t count) {
  return std::as_writable_bytes(std::span(data, count));
}

}  // namespace

void Trainer::find_place() { mesh_ = parallel::make_mesh(recipe_.layout, team_->comm()); }

std::unique_ptr<ModelShare> Trainer::share_of(const LayoutSpec& layout, int64_t rank) {
  return std::make_unique<ModelShare>(recipe_, layout, mesh_coordinates(layout, rank), context_);
}

std::unique_ptr<parallel::ShardedOptimizer> Trainer::optimizer_for(ModelShare& share) {
  if (!shards()) return std::make_unique<parallel::ShardedOptimizer>(share.store(), recipe_.optimizer);
  return std::make_unique<parallel::ShardedOptimizer>(
      share.store(), recipe_.optimizer, share.holdings().updated(mesh_.shards(), mesh_.shard()),
      parallel::OwnMemory{shards_gradients(), shards_values()});
}

void Trainer::move_state(const parallel::MovePlan& plan, const parallel::ShardedOptimizer* from,
                         parallel::ShardedOptimizer* to) {
  std::vector<float> wire;
  for (const parallel::Move& m : plan.moves) {
    if (m.from == team_->rank()) {
      wire.resize(from->packed_floats(m.range));
      from->pack(m.range, wire.data());
      team_->comm().send(std::as_bytes(std::span(wire)), m.to, kPatience_s);
    } else if (m.to == team_->rank()) {
      wire.resize(to->packed_floats(m.range));
      team_->comm().receive(std::as_writable_bytes(std::span(wire)), m.from, kPatience_s);
      to->unpack(m.range, wire.data());
    }
  }
}

// Every rank's own shard of the values to the ranks that replicate them, and a tied embedding to its other end.
void Trainer::share_values() {
  if (!share_) return;
  team_->phase("share", step_);
  nn::ParameterStore& store = share_->store();
  share_->values_changed();
  const auto me = static_cast<size_t>(mesh_.shard());
  const double busy_before_s = mesh_.replicas->busy_s();
  if (shards()) {
    for (const parallel::HeldFold& fold : share_->holdings().folds()) {
      if (shards_values() && fold.layer >= 0) continue;  // comes when it is needed
      auto begins = share_->holdings().cuts(fold, mesh_.shards());
      const size_t flat = fold.blocks.front().flat;
      auto* values = store.stretch(flat, fold.size()).value.as<float>();
      if (shards_values() && begins[me] < begins[me + 1])
        std::memcpy(values + begins[me], optimizer_->value({flat + begins[me], flat + begins[me + 1]}),
                    (begins[me + 1] - begins[me]) * sizeof(float));
      for (size_t& b : begins) b *= sizeof(float);
      mesh_.replicas->all_gather_parts(float_bytes(values, fold.size()), begins);
    }
    store.refresh(context_);
  }
  shared_s_ += mesh_.replicas->busy_s() - busy_before_s;
  share_->share_read_only();
}

// ZeRO 3: of the shard that data worker `worker` owns, which must be held here.
Hash128 Trainer::hash_values(int64_t worker) const {
  std::vector<Hash128> parts;
  for (const parallel::Range& r : share_->holdings().owned(mesh_.shards(), worker))
    parts.push_back(hash128(optimizer_->value(r), r.size() * sizeof(float)));
  return hash128(parts.data(), parts.size() * sizeof(Hash128));
}

// All values that this worker has between the steps.
Hash128 Trainer::hash_held_values() const {
  const TensorView values = share_->store().values();
  const Hash128 here = hash128(values.data, values.bytes());
  if (!shards_values()) return here;
  const int64_t n = mesh_.shards(), me = mesh_.shard();
  const Hash128 all[] = {here, hash_values(me), hash_values((me + n - 1) % n)};
  return hash128(all, sizeof all);
}

// Where the sum of a block's gradient is, and of those behind it that make `count` elements.
float* Trainer::gradient_sum(const parallel::HeldBlock& block, size_t count) const {
  if (shards_gradients()) return optimizer_->gradient({block.flat, block.flat + count});
  return share_->store().grads().as<float>() + block.local;
}

Trainer::Exposed Trainer::exposed() const {
  Exposed e;
  if (!team_ || !team_->formed()) return e;
  e.agreement = team_->comm().busy_s();
  e.weights = shared_s_ + (share_ ? share_->gather_s() : 0);
  if (mesh_.replicas) e.gradients = mesh_.replicas->busy_s() - e.weights;
  if (mesh_.line) e.pipeline = mesh_.line->busy_s();
  if (mesh_.tensor) e.tensor = mesh_.tensor->busy_s();
  if (mesh_.context) e.context = mesh_.context->busy_s();
  return e;
}

// This rank's virtual ranks and their micro-batches.
void Trainer::take_place() {
  expect_slowness();
  shared_s_ = 0;
  const int64_t rows = recipe_.micro_batch, batch = recipe_.global_batch;
  const int64_t per_leaf = batch / rows / recipe_.virtual_ranks;
  std::vector<int> leaves;
  if (share_) {
    share_->take_place(mesh_, *optimizer_);
    leaves = share_->leaves();
  }
  micro_batches_ = static_cast<uint64_t>(per_leaf) * leaves.size();
  // Each rank of this generation stores another part than before.
  if (writer_) writer_->abandon();
  forget_save();
  writer_ = std::make_unique<checkpoint::BackgroundWriter>(
      *checkpoints_, checkpoint::WriterOptions{team_->rank(), team_->size()});
  ledger_.reset();
  if (team_->rank() == 0) open_ledger(next_batch_);
  prefetcher_.reset();
  if (micro_batches_ == 0) return;
  const uint64_t mine = micro_batches_;
  prefetcher_ = std::make_unique<data::Prefetcher>(
      *loader_,
      [=](uint64_t i) {
        const auto m = static_cast<int64_t>(i % mine);
        const int64_t at = leaves[static_cast<size_t>(m / per_leaf)] * per_leaf + m % per_leaf;
        return data::SampleRange{i / mine * static_cast<uint64_t>(batch) + static_cast<uint64_t>(at * rows),
                                 rows};
      },
      next_batch_ * mine);
}

// Storage may be away for longer than the others wait in a collective. Whoever waits for it says so, and comes when they regroup.
void Trainer::wait_for_data() {
  if (prefetcher_->ready(0.3)) return;
  team_->phase("data", step_);
  while (!prefetcher_->ready(0.05))
    if (const std::string why = team_->broken(); !why.empty()) throw comm::PeerError(-1, why);
  team_->phase("compute", step_);
}

// Another rank may be slower than this one; one that is dead or stopped is found by other means long before. Before any step has
// been done nobody knows how long one takes.
void Trainer::expect_slowness() {
  const double timeout_s = slowest_s_ > 0 ? hooks_.timeout_s + 10 * slowest_s_ : kPatience_s;
  team_->comm().set_timeout(timeout_s);
  mesh_.set_timeout(timeout_s);
}

// The sum over all virtual ranks into the gradients (stage 0: all of this rank's share; above: own and mirrored shard), the losses
// of all, the norm.
void Trainer::sum_over_team(std::vector<double>& losses, StepResult& result) {
  team_->phase("reduce", step_);
  if (share_) {
    if (share_->shards()) take_shards();
    else share_->settle_sums();
    shard_hash_ = hash_of_shards();
    share_->reset();
  }
  result.gradient_norm = gradient_norm();
  team_->comm().all_reduce(std::span(losses), comm::Reduce::kSum);  // each is nonzero on one rank only: exact
}

// ZeRO 2 and 3: the sum of this rank's shard of each fold, and the one that it mirrors from the rank before.
void Trainer::take_shards() {
  const parallel::Holdings& holdings = share_->holdings();
  const int n = mesh_.shards(), me = mesh_.shard(), before = (me + n - 1) % n;
  std::vector<comm::Ticket> tickets;
  for (size_t f = 0; f < holdings.folds().size(); ++f) {
    const auto cuts = holdings.cuts(holdings.folds()[f], n);
    const size_t flat = holdings.folds()[f].blocks.front().flat;
    const auto gradient = [&](int worker) {
      const size_t begin = cuts[static_cast<size_t>(worker)], end = cuts[static_cast<size_t>(worker) + 1];
      return end > begin ? std::span(optimizer_->gradient({flat + begin, flat + end}), end - begin)
                         : std::span<float>();
    };
    const auto own = gradient(me), mirror = gradient(before);
    if (!mirror.empty())
      tickets.push_back(mesh_.replicas->post_receive(std::as_writable_bytes(mirror), before));
    const float* sum = share_->shards()->sum(f);
    if (own.empty()) continue;
    std::memcpy(own.data(), sum, own.size_bytes());
    tickets.push_back(mesh_.replicas->post_send(std::as_bytes(own), (me + 1) % n));
  }
  for (const comm::Ticket& t : tickets) mesh_.replicas->await(t);
}

Hash128 Trainer::hash_of_shards() const {
  if (!share_ || !shards()) return {};
  const int64_t n = mesh_.shards(), me = mesh_.shard();
  std::vector<Hash128> parts;
  for (const parallel::HeldFold& fold : share_->holdings().folds())
    for (const int64_t worker : {me, (me + n - 1) % n})
      for (const parallel::HeldBlock& block : share_->holdings().owned_blocks(fold, n, worker))
        parts.push_back(hash128(gradient_sum(block, block.size), block.size * sizeof(float)));
  return hash128(parts.data(), parts.size() * sizeof(Hash128));
}

}  // namespace stoker::train
