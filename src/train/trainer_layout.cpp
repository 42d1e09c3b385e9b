// The trainer's place in the layout: what it holds there, how gradients are summed and values shared, and who saves what.
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
  return std::make_unique<ModelShare>(recipe_, layout, mesh_coordinates(layout, rank).pipeline, context_);
}

std::unique_ptr<parallel::ShardedOptimizer> Trainer::optimizer_for(ModelShare& share) {
  if (mesh_.layout.zero_stage == 0 || mesh_.layout.data == 1)
    return std::make_unique<parallel::ShardedOptimizer>(share.store(), recipe_.optimizer);
  return std::make_unique<parallel::ShardedOptimizer>(
      share.store(), recipe_.optimizer, share.holdings().updated(mesh_.layout.data, mesh_.at.data));
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
  nn::ParameterStore& store = share_->store();
  if (mesh_.layout.zero_stage > 0 && mesh_.layout.data > 1) {
    for (const parallel::HeldFold& fold : share_->holdings().folds()) {
      auto begins = share_->holdings().cuts(fold, mesh_.layout.data);
      for (size_t& b : begins) b *= sizeof(float);
      mesh_.data->all_gather_parts(float_bytes(store.values().as<float>() + fold.begin, fold.size()), begins);
    }
    store.refresh(context_);
  }
  share_->share_read_only();
}

// This rank's virtual ranks and their micro-batches.
void Trainer::take_place() {
  const bool several = mesh_.layout.pipeline > 1;
  if (!mesh_.spare && writes() && (!writer_ || several)) {
    if (writer_) collect_saves(true);
    writer_ = std::make_unique<checkpoint::BackgroundWriter>(
        *checkpoints_, checkpoint::WriterOptions{.writer = static_cast<int>(mesh_.at.pipeline),
                                                 .writers = static_cast<int>(mesh_.layout.pipeline)});
  }
  if (!writer_) writer_ = std::make_unique<checkpoint::BackgroundWriter>(*checkpoints_);
  const comm::LeafSpan leaves =
      share_ ? comm::leaves_of(static_cast<int>(mesh_.at.data), mesh_.shards(), recipe_.virtual_ranks)
             : comm::LeafSpan{};
  const int64_t rows = recipe_.micro_batch, batch = recipe_.global_batch;
  const int64_t per_leaf = batch / rows / recipe_.virtual_ranks;
  micro_batches_ = static_cast<uint64_t>(per_leaf * leaves.size());
  if (share_) share_->take_place(leaves, mesh_.line.get());
  ledger_.reset();
  if (team_->rank() == 0)
    ledger_ = std::make_unique<Ledger>(recipe_.run_dir + "/ledger.jsonl", next_batch_,
                                       static_cast<uint64_t>(batch), team_->generation());
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

// The sum over all virtual ranks into the gradients (stage 0: all of this rank's share; above: own and mirrored shard), the losses
// of all, the norm.
void Trainer::sum_over_team(std::vector<double>& losses, StepResult& result) {
  team_->phase("reduce", step_);
  if (share_) {
    const parallel::Holdings& holdings = share_->holdings();
    const int n = mesh_.shards(), me = static_cast<int>(mesh_.at.data);
    const auto spans = comm::even_spans(n, recipe_.virtual_ranks);
    for (size_t f = 0; f < holdings.folds().size(); ++f) {
      const parallel::HeldFold& fold = holdings.folds()[f];
      float* grads = share_->store().grads().as<float>() + fold.begin;
      const auto partials = share_->partials(f);
      const auto cuts = holdings.cuts(fold, n);
      if (mesh_.layout.zero_stage == 0 || n == 1) {
        mesh_.data->tree_all_reduce(partials, fold.size(), spans, grads, cuts);
        continue;
      }
      const auto own = static_cast<size_t>(me), mirror = static_cast<size_t>((me + n - 1) % n);
      mesh_.data->tree_reduce_scatter(partials, fold.size(), spans, grads + cuts[own], cuts);
      mesh_.data->exchange(float_bytes(grads + cuts[own], cuts[own + 1] - cuts[own]), (me + 1) % n,
                           float_bytes(grads + cuts[mirror], cuts[mirror + 1] - cuts[mirror]),
                           (me + n - 1) % n);
    }
    share_->reset();
  }
  result.gradient_norm = gradient_norm();
  team_->comm().all_reduce(std::span(losses), comm::Reduce::kSum);  // each is nonzero on one rank only: exact
}

// One rank of every stage writes that stage's part of the checkpoint; sharded optimizer state is first collected there. With one
// writer it commits by itself; with several, rank 0 does when all have finished (collect_commit).
void Trainer::save_together() {
  std::unique_ptr<parallel::ShardedOptimizer> whole;
  if (mesh_.layout.zero_stage > 0 && mesh_.layout.data > 1) {
    LayoutSpec collected = mesh_.layout;
    collected.zero_stage = 0;
    std::vector<std::vector<parallel::Range>> held, wanted;
    for (int r = 0; r < team_->size(); ++r) {
      held.push_back(parallel::held_ranges(recipe_.model, mesh_.layout, r));
      const bool collects = r < mesh_.layout.world_size() && mesh_coordinates(mesh_.layout, r).data == 0;
      wanted.push_back(collects ? parallel::held_ranges(recipe_.model, collected, r)
                                : std::vector<parallel::Range>{});
    }
    if (share_ && writes()) {
      whole = std::make_unique<parallel::ShardedOptimizer>(share_->store(), recipe_.optimizer);
      whole->take_state(*optimizer_);
    }
    move_state(parallel::plan_moves(held, wanted), optimizer_.get(), whole.get());
  }
  if (!share_ || !writes()) return;
  std::string why;
  if (!team_->may_commit(&why))
    fail(ErrorKind::kPeer, "this worker may not write checkpoints any more: {}", why);
  save(whole ? *whole : *optimizer_);
  saved_whole_ = std::move(whole);  // lent to the writer until the next save
}

// With several writers: the marker, once every writer has said that its part is durable. Hashing reads the files, so it happens
// beside the training.
void Trainer::collect_commit(bool wait) {
  if (!commit_) return;
  if (!commit_->done.valid() && saved_by_all_ >= commit_->step) {
    std::vector<std::string> attachments;
    if (!hooks_.tokenizer_json.empty()) attachments.push_back("tokenizer.json");
    commit_->done = std::async(std::launch::async, [this, attachments, step = commit_->step,
                                                    directory = commit_->directory,
                                                    writers = static_cast<int>(mesh_.layout.pipeline)] {
      checkpoint::Commit c =
          checkpoints_->commit(directory, step, writers, attachments, std::nullopt, system_clock().unix_s());
      checkpoints_->prune();
      return c;
    });
  }
  if (!commit_->done.valid()) {
    if (wait) commit_.reset();
    return;
  }
  if (!wait && commit_->done.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return;
  PendingCommit ended = std::move(*commit_);
  commit_.reset();
  nlohmann::json event{{"event", "checkpoint"}, {"step", ended.step}, {"directory", ended.directory}};
  try {
    const checkpoint::Commit c = ended.done.get();
    event["weights_hash"] = summary_.weights_hash = c.weights_hash.hex();
    summary_.checkpoint = ended.directory;
  } catch (const Error& e) {
    event["error"] = e.what();
    if (!hooks_.quiet) fmt::print(stderr, "\ncheckpoint of step {} failed: {}\n", ended.step, e.what());
    if (ended.step == recipe_.steps) throw;
  }
  log_->write(event);
}

// The end: the last checkpoint exists, whoever has to write it, before anybody leaves.
void Trainer::finish_together() {
  const auto everybody_saved = [&] {
    collect_saves(true);
    std::vector<int64_t> saved{writes() ? saved_step_ : std::numeric_limits<int64_t>::max()};
    team_->comm().all_reduce(std::span(saved), comm::Reduce::kMin, kPatience_s);
    saved_by_all_ = saved[0];
    if (speaks()) collect_commit(false), collect_commit(true);
  };
  for (;;) {
    try {
      if (!team_->formed()) regroup();
      everybody_saved();
      std::vector<int64_t> missing{speaks() && !checkpoints_->find(step_) ? 1 : 0};
      team_->comm().all_reduce(std::span(missing), comm::Reduce::kMax, kPatience_s);
      if (missing[0]) {
        save_together();
        everybody_saved();
      }
      team_->comm().barrier(kPatience_s);
      return;
    } catch (const comm::PeerError& e) {
      team_->lost(e);
      regroup();
    }
  }
}

}  // namespace stoker::train
