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

constexpr double kPatience_s = 600;  // where one rank reads or writes files while the others wait

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
      share.store(), recipe_.optimizer, share.holdings().updated(mesh_.shards(), mesh_.shard()));
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
  if (shards()) {
    for (const parallel::HeldFold& fold : share_->holdings().folds()) {
      auto begins = share_->holdings().cuts(fold, mesh_.shards());
      for (size_t& b : begins) b *= sizeof(float);
      mesh_.replicas->all_gather_parts(float_bytes(store.values().as<float>() + fold.begin, fold.size()),
                                       begins);
    }
    store.refresh(context_);
  }
  share_->share_read_only();
}

// This rank's virtual ranks and their micro-batches.
void Trainer::take_place() {
  expect_slowness();
  const comm::LeafSpan leaves = share_ ? mesh_.leaves(recipe_.virtual_ranks) : comm::LeafSpan{};
  const int64_t rows = recipe_.micro_batch, batch = recipe_.global_batch;
  const int64_t per_leaf = batch / rows / recipe_.virtual_ranks;
  micro_batches_ = static_cast<uint64_t>(per_leaf * leaves.size());
  if (share_) share_->take_place(leaves, mesh_);
  // Each rank of this generation stores another part than before.
  if (writer_) writer_->abandon();
  forget_save();
  writer_ = std::make_unique<checkpoint::BackgroundWriter>(
      *checkpoints_, checkpoint::WriterOptions{team_->rank(), team_->size()});
  ledger_.reset();
  if (team_->rank() == 0)
    ledger_ =
        std::make_unique<Ledger>(recipe_.run_dir + "/ledger.jsonl", next_batch_, static_cast<uint64_t>(batch),
                                 team_->generation(), [this](uint64_t b) { return sources_of_batch(b); });
  prefetcher_.reset();
  if (micro_batches_ == 0) return;
  const uint64_t mine = micro_batches_;
  const int64_t first = leaves.begin * per_leaf;
  prefetcher_ = std::make_unique<data::Prefetcher>(
      *loader_,
      [=](uint64_t i) {
        const auto at = static_cast<uint64_t>(first) + i % mine;
        return data::SampleRange{i / mine * static_cast<uint64_t>(batch) + at * static_cast<uint64_t>(rows),
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
    const parallel::Holdings& holdings = share_->holdings();
    const int n = mesh_.shards(), me = mesh_.shard();
    const auto spans = mesh_.leaf_spans(recipe_.virtual_ranks);
    for (size_t f = 0; f < holdings.folds().size(); ++f) {
      const parallel::HeldFold& fold = holdings.folds()[f];
      float* grads = share_->store().grads().as<float>() + fold.begin;
      const auto partials = share_->partials(f);
      const auto cuts = holdings.cuts(fold, n);
      if (!shards()) {
        mesh_.replicas->tree_all_reduce(partials, fold.size(), spans, grads, cuts);
        continue;
      }
      const auto own = static_cast<size_t>(me), mirror = static_cast<size_t>((me + n - 1) % n);
      mesh_.replicas->tree_reduce_scatter(partials, fold.size(), spans, grads + cuts[own], cuts);
      mesh_.replicas->exchange(float_bytes(grads + cuts[own], cuts[own + 1] - cuts[own]), (me + 1) % n,
                               float_bytes(grads + cuts[mirror], cuts[mirror + 1] - cuts[mirror]),
                               (me + n - 1) % n);
    }
    shard_hash_ = hash_of_shards();
    share_->reset();
  }
  result.gradient_norm = gradient_norm();
  team_->comm().all_reduce(std::span(losses), comm::Reduce::kSum);  // each is nonzero on one rank only: exact
}

Hash128 Trainer::hash_of_shards() const {
  if (!share_ || !shards()) return {};
  const int n = mesh_.shards(), me = mesh_.shard();
  const float* grads = share_->store().grads().as<float>();
  std::vector<Hash128> parts;
  for (const parallel::HeldFold& fold : share_->holdings().folds()) {
    const auto cuts = share_->holdings().cuts(fold, n);
    for (const int worker : {me, (me + n - 1) % n}) {
      const size_t begin = cuts[static_cast<size_t>(worker)], end = cuts[static_cast<size_t>(worker) + 1];
      parts.push_back(hash128(grads + fold.begin + begin, (end - begin) * sizeof(float)));
    }
  }
  return hash128(parts.data(), parts.size() * sizeof(Hash128));
}

}  // namespace stoker::train
