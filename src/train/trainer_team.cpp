// The trainer's dealings with the other workers: forming a generation, agreeing on its state, summing, committing.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/hash.h"
#include "base/stop.h"
#include "ops/update.h"
#include "train/ledger.h"
#include "train/trainer.h"

namespace stoker::train {
namespace {

constexpr double kPatience_s = 600;  // where one rank reads or writes files while the others wait

template <typename T>
std::span<std::byte> bytes_of(T& value) {
  return std::as_writable_bytes(std::span<T, 1>(&value, 1));
}

// What the members tell each other before an update becomes real.
struct Vote {
  int64_t clock = 0;
  int64_t regroup = 0, stop = 0;
  int64_t saved = -1;  // step of the checkpoint whose part is durable on this rank
  Hash128 values, gradients;
};

// The rank whose hash is alone against a majority; -1 nobody differs, -2 they differ without a majority.
template <typename Hash>
int odd_one_out(const std::vector<Vote>& votes, const Hash& hash) {
  int odd = -1;
  for (size_t r = 0; r < votes.size(); ++r) {
    size_t same = 0;
    for (const Vote& v : votes) same += hash(v) == hash(votes[r]);
    if (same == votes.size()) return -1;
    if (same * 2 < votes.size()) odd = static_cast<int>(r);
  }
  return odd >= 0 ? odd : -2;
}

}  // namespace

Progress Trainer::progress() const {
  Progress p;
  if (!optimizer_ || !has_state_) return p;
  p.clock = static_cast<int64_t>(next_batch_);
  p.prepared = pending_.has_value();
  p.workers = optimizer_->workers();
  p.rank = held_rank_;
  return p;
}

void Trainer::regroup() {
  for (;;) {
    team_->form(progress());
    try {
      synchronise();
      return;
    } catch (const comm::PeerError& e) {
      team_->lost(e);
    }
  }
}

std::unique_ptr<parallel::ShardedOptimizer> Trainer::optimizer_for(int workers, int rank) {
  return std::make_unique<parallel::ShardedOptimizer>(*store_, recipe_.optimizer, hooks_.zero_stage, workers,
                                                      rank);
}

// After a generation has formed: everybody gets the state of the last finished batch. Whoever was ready to finish the batch that
// another has finished finishes it too (the vote was complete, so nothing is missing); whoever is behind is brought up by the
// others from memory.
void Trainer::synchronise() {
  comm::Communicator& comm = team_->comm();
  const int n = team_->size(), me = team_->rank();
  std::vector<Progress> said;
  int64_t clock = -1;
  for (int r = 0; r < n; ++r) {
    said.push_back(team_->progress(r));
    clock = std::max(clock, said.back().clock);
  }
  team_->phase("recover", clock);
  log_.reset();
  log_ = std::make_unique<RunLog>(me == 0
                                      ? recipe_.run_dir + "/log.jsonl"
                                      : fmt::format("{}/workers/{}.jsonl", recipe_.run_dir, team_->worker()));
  if (clock < 0) {
    begin_together();
  } else {
    if (writer_) writer_->before_update();  // what a save has borrowed is about to change
    const auto valid = [&](const Progress& p) {
      return p.clock == clock || (p.clock == clock - 1 && p.prepared);
    };
    if (pending_ && said[static_cast<size_t>(me)].clock == clock - 1)
      finish_batch(*std::exchange(pending_, std::nullopt));
    pending_.reset();
    const auto elements = static_cast<size_t>(store_->values().count());
    std::vector<std::vector<parallel::Range>> held, wanted;
    int source = -1;
    for (int r = 0; r < n; ++r) {
      const Progress& p = said[static_cast<size_t>(r)];
      held.push_back(valid(p) ? parallel::held_ranges(hooks_.zero_stage, elements, p.workers, p.rank)
                              : std::vector<parallel::Range>{});
      wanted.push_back(parallel::held_ranges(hooks_.zero_stage, elements, n, r));
      if (valid(p) && source < 0) source = r;
    }
    const parallel::MovePlan plan = parallel::plan_moves(held, wanted);
    if (!plan.lost.empty())
      fail(ErrorKind::kPeer,
           "two neighbouring workers were lost at once, and with them the optimizer state of {} parameters: "
           "the run must go on "
           "from its last checkpoint. Start it again with the same command.",
           plan.lost.size());
    auto next = optimizer_for(n, me);
    if (valid(said[static_cast<size_t>(me)])) next->take_state(*optimizer_);
    move_state(plan, *next);
    share_values(n);
    share_counters(source);
    comm.barrier(kPatience_s);  // everybody has everything: from here on the old layout is not needed
    optimizer_ = std::move(next);
    store_->refresh(context_);
  }
  has_state_ = true;
  held_rank_ = me;
  values_hash_.reset();
  take_place();
}

// The first generation: rank 0 reads or begins the run, the others follow what it found.
void Trainer::begin_together() {
  comm::Communicator& comm = team_->comm();
  optimizer_ = optimizer_for(team_->size(), team_->rank());
  if (recipe_.minutes > 0 && !fs_.exists(recipe_.run_dir + "/resolved.json"))
    fail(ErrorKind::kUsage,
         "train.minutes with several workers: expected train.steps, or a run directory that has resolved it");
  if (team_->rank() == 0) begin_or_resume();
  comm.barrier(kPatience_s);
  if (team_->rank() != 0) begin_or_resume();
  std::vector<int64_t> steps{static_cast<int64_t>(next_batch_), -static_cast<int64_t>(next_batch_)};
  comm.all_reduce(std::span(steps), comm::Reduce::kMax, kPatience_s);
  if (steps[0] != -steps[1])
    fail(ErrorKind::kStorage,
         "the workers see different checkpoints (batch {} and {}): run.dir must be on storage that all share",
         -steps[1], steps[0]);
}

void Trainer::move_state(const parallel::MovePlan& plan, parallel::ShardedOptimizer& next) {
  std::vector<float> wire;
  for (const parallel::Move& m : plan.moves) {
    if (m.from == team_->rank()) {
      wire.resize(optimizer_->packed_floats(m.range));
      optimizer_->pack(m.range, wire.data());
      team_->comm().send(std::as_bytes(std::span(wire)), m.to, kPatience_s);
    } else if (m.to == team_->rank()) {
      wire.resize(next.packed_floats(m.range));
      team_->comm().receive(std::as_writable_bytes(std::span(wire)), m.from, kPatience_s);
      next.unpack(m.range, wire.data());
    }
  }
}

// Every rank's own shard of the values to all. Needed where values are sharded in the update; harmless otherwise.
void Trainer::share_values(int workers) {
  if (hooks_.zero_stage == 0) return;
  team_->phase("share", step_);
  auto begins = parallel::shard_cuts(static_cast<size_t>(store_->values().count()), workers);
  for (size_t& b : begins) b *= sizeof(float);
  team_->comm().all_gather_parts({static_cast<std::byte*>(store_->values().data), store_->values().bytes()},
                                 begins);
}

void Trainer::share_counters(int source) {
  std::string text;
  if (team_->rank() == source)
    text = nlohmann::json{{"step", step_},
                          {"next_batch", next_batch_},
                          {"tokens", tokens_seen_},
                          {"skips", skips_in_a_row_},
                          {"losses", watch_.state()},
                          {"feed", loader_->description()},
                          {"steps", recipe_.steps},
                          {"loss", fmt::format("{:a}", summary_.loss)}}
               .dump();
  auto size = static_cast<int64_t>(text.size());
  team_->comm().broadcast(bytes_of(size), source);
  if (size < 0 || size > (1 << 24)) fail(ErrorKind::kPeer, "a worker sent counters of {} bytes", size);
  text.resize(static_cast<size_t>(size));
  team_->comm().broadcast(std::as_writable_bytes(std::span(text)), source);
  const auto j = nlohmann::json::parse(text);
  step_ = j.at("step");
  next_batch_ = j.at("next_batch");
  if (j.at("feed").get<std::string>() != loader_->description())
    fail(ErrorKind::kUsage,
         "this worker's recipe mixes its data in another way than the running team's: {}. Start it with the "
         "team's recipe",
         loader_->past_difference(j.at("feed").get<std::string>(), data::MixtureSchedule::kForever,
                                  static_cast<uint64_t>(recipe_.global_batch)));
  tokens_seen_ = j.at("tokens");
  skips_in_a_row_ = j.at("skips");
  watch_.restore(j.at("losses"));
  recipe_.steps = j.at("steps");
  resolve_schedule();
}

// This rank's virtual ranks: their micro-batches, their tree.
void Trainer::take_place() {
  const comm::LeafSpan leaves = team_->leaves();
  const int64_t rows = recipe_.micro_batch, batch = recipe_.global_batch;
  const int64_t per_leaf = batch / rows / recipe_.virtual_ranks;
  micro_batches_ = static_cast<uint64_t>(per_leaf * leaves.size());
  tree_ = std::make_unique<comm::TreeAccumulator>(leaves, recipe_.virtual_ranks,
                                                  static_cast<size_t>(store_->grads().count()));
  // Each rank of this generation stores another part than before.
  if (writer_) writer_->abandon();
  writer_ = std::make_unique<checkpoint::BackgroundWriter>(
      *checkpoints_, checkpoint::WriterOptions{team_->rank(), team_->size()});
  shared_save_.reset();
  part_copies_.clear();
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

// The sum over all virtual ranks in store_->grads() (stage 0: all of it; stage 1: own and mirrored shard), the losses of all, the norm.
void Trainer::sum_over_team(std::vector<double>& losses, StepResult& result) {
  comm::Communicator& comm = team_->comm();
  team_->phase("reduce", step_);
  const int n = team_->size(), me = team_->rank();
  const auto elements = static_cast<size_t>(store_->grads().count());
  auto* grads = store_->grads().as<float>();
  const auto partials = tree_->partials();
  const auto cuts = parallel::shard_cuts(elements, n);
  if (hooks_.zero_stage == 0 || n == 1) {
    comm.tree_all_reduce(partials, elements, team_->spans(), grads, cuts);
    result.gradient_norm = std::sqrt(ops::sum_squares(context_, store_->grads()));
  } else {
    const parallel::Range own = parallel::owned_range(elements, n, me);
    const parallel::Range mirror = parallel::owned_range(elements, n, (me + n - 1) % n);
    comm.tree_reduce_scatter(partials, elements, team_->spans(), grads + own.begin, cuts);
    comm.exchange(std::as_bytes(std::span(grads + own.begin, own.size())), (me + 1) % n,
                  std::as_writable_bytes(std::span(grads + mirror.begin, mirror.size())), (me + n - 1) % n);
    // The blocks of ops::sum_squares, each summed by its owner, added in order by all: the single worker's bits.
    std::vector<double> blocks((elements + parallel::kShardUnit - 1) / parallel::kShardUnit, 0.0);
    for (size_t at = own.begin; at < own.end; at += parallel::kShardUnit) {
      const size_t count = std::min(parallel::kShardUnit, own.end - at);
      blocks[at / parallel::kShardUnit] =
          ops::sum_squares(context_, view_of(grads + at, Shape{static_cast<int64_t>(count)}));
    }
    comm.all_reduce(std::span(blocks), comm::Reduce::kSum);
    double total = 0;
    for (double b : blocks) total += b;
    result.gradient_norm = std::sqrt(total);
  }
  shard_hash_ = hash_of_shards();
  tree_->reset();
  comm.all_reduce(std::span(losses), comm::Reduce::kSum);  // each is nonzero on one rank only: exact
}

Hash128 Trainer::hash_of_shards() const {
  const int n = team_->size();
  if (hooks_.zero_stage == 0 || n == 1) return {};
  const auto elements = static_cast<size_t>(store_->grads().count());
  std::vector<Hash128> parts;
  for (const parallel::Range& r : parallel::held_ranges(hooks_.zero_stage, elements, n, team_->rank()))
    parts.push_back(hash128(store_->grads().as<float>() + r.begin, r.size() * sizeof(float)));
  return hash128(parts.data(), parts.size() * sizeof(Hash128));
}

// The members agree that everybody can finish this batch, and that their weights and gradients are the same to the bit. From the
// moment this returns on one rank, every other can finish the batch by itself.
void Trainer::vote(const StepResult& result) {
  team_->phase("commit", step_);
  Vote mine;
  mine.clock = static_cast<int64_t>(next_batch_);
  mine.regroup = team_->regroup_soon();
  mine.stop = stop_requested() || team_->stop_wanted();
  const Hash128 now = hash128(store_->values().data, store_->values().bytes());
  mine.values = now;
  mine.saved = saved_part(false);
  if (hooks_.zero_stage == 0) mine.gradients = hash128(store_->grads().data, store_->grads().bytes());
  // Sharded gradients have one owner and one mirror: each compares what it holds now with what came out of the sum.
  const bool shards_decayed = hooks_.zero_stage > 0 && hash_of_shards() != shard_hash_;
  const bool decayed =
      shards_decayed ||
      (values_hash_ && *values_hash_ != now);  // what this rank wrote last is not what it reads now
  if (decayed) mine.regroup |= 2;
  pending_ = result;
  std::vector<Vote> votes(static_cast<size_t>(team_->size()));
  team_->comm().all_gather(bytes_of(mine), std::as_writable_bytes(std::span(votes)));
  bool regroup_wanted = false;
  stop_agreed_ = false;
  int liar = -1;
  for (size_t r = 0; r < votes.size(); ++r) {
    if (votes[r].clock != mine.clock)
      fail(ErrorKind::kInternal, "rank {} is at batch {}, rank {} at {}", r, votes[r].clock, team_->rank(),
           mine.clock);
    regroup_wanted |= (votes[r].regroup & 1) != 0;
    stop_agreed_ |= votes[r].stop != 0;
    if (votes[r].regroup & 2) liar = static_cast<int>(r);
  }
  const char* what = "weights";
  int odd = odd_one_out(votes, [](const Vote& v) { return v.values; });
  if (odd == -1) {
    odd = odd_one_out(votes, [](const Vote& v) { return v.gradients; });
    if (odd != -1) what = "gradient sum";
  }
  if (odd == -1 && liar < 0) {
    regroup_after_ = regroup_wanted;
    std::vector<int64_t> saved;
    for (const Vote& v : votes) saved.push_back(v.saved);
    return settle_save(saved);
  }
  pending_.reset();
  if (liar < 0) liar = odd;
  if (liar < 0)
    fail(ErrorKind::kDevice,
         "the {} of the two workers differ at step {} and neither can be shown to be right: start again from "
         "the last checkpoint",
         what, step_ + 1);
  name_liar(liar, what);
}

}  // namespace stoker::train
