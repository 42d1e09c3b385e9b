// The trainer's dealings with the other workers: forming a generation, agreeing on its state, summing, committing.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/clock.h"
#include "base/hash.h"
#include "base/stop.h"
#include "ops/update.h"
#include "train/ledger.h"
#include "train/trainer.h"

namespace stoker::train {
namespace {

template <typename T>
std::span<std::byte> bytes_of(T& value) {
  return std::as_writable_bytes(std::span<T, 1>(&value, 1));
}

// What the members tell each other before an update becomes real.
struct Vote {
  int64_t clock = 0;
  int64_t regroup = 0, stop = 0;
  int64_t share = -1;  // which part of the model this rank replicates; -1: none
  int64_t saved = -1;  // step of the checkpoint whose part is durable on this rank
  double slowest_s = 0;
  Hash128 values, gradients;
  Hash128 own, mirrored;  // ZeRO 3: the values it owns, and what it has of its neighbour's
};

// Among ranks that replicate the same part: the rank whose hash is alone against a majority; -1 nobody differs, -2 some differ
// without a majority.
template <typename Hash>
int odd_one_out(const std::vector<Vote>& votes, const Hash& hash) {
  bool differ = false;
  for (size_t r = 0; r < votes.size(); ++r) {
    size_t same = 0, all = 0;
    for (const Vote& v : votes) {
      if (votes[r].share < 0 || v.share != votes[r].share) continue;
      ++all;
      same += hash(v) == hash(votes[r]);
    }
    differ |= same != all;
    if (same * 2 < all) return static_cast<int>(r);
  }
  return differ ? -2 : -1;
}

}  // namespace

Progress Trainer::progress() const {
  Progress p;
  if (!has_state_) return p;
  p.clock = static_cast<int64_t>(next_batch_);
  p.prepared = pending_.has_value();
  p.workers = held_workers_;
  p.rank = held_rank_;
  return p;
}

void Trainer::regroup() {
  for (;;) {
    mesh_ = {};
    team_->form(progress());
    try {
      if (parallel::fitted(recipe_.layout, team_->size()).data < 1) {
        wait_for_workers();
        continue;
      }
      synchronise();
      return;
    } catch (const comm::PeerError& e) {
      team_->lost(e);
    }
  }
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
  find_place();
  if (clock < 0) {
    begin_together();
    take_place();
  } else {
    if (writer_) writer_->before_update();  // what a save has borrowed is about to change
    const auto valid = [&](const Progress& p) {
      return p.clock == clock || (p.clock == clock - 1 && p.prepared);
    };
    if (pending_ && said[static_cast<size_t>(me)].clock == clock - 1)
      finish_batch(*std::exchange(pending_, std::nullopt));
    pending_.reset();
    std::vector<std::vector<parallel::Range>> held, wanted;
    int source = -1;
    for (int r = 0; r < n; ++r) {
      const Progress& p = said[static_cast<size_t>(r)];
      held.push_back(
          valid(p) ? parallel::held_ranges(recipe_.model, parallel::fitted(recipe_.layout, p.workers), p.rank)
                   : std::vector<parallel::Range>{});
      wanted.push_back(parallel::held_ranges(recipe_.model, mesh_.layout, r));
      if (valid(p) && source < 0) source = r;
    }
    const parallel::MovePlan plan = parallel::plan_moves(held, wanted);
    if (plan.lost.empty()) {
      const bool mine = valid(said[static_cast<size_t>(me)]);
      std::unique_ptr<ModelShare> share;  // where this worker computes something else than before
      if (!mesh_.spare &&
          (!share_ || !share_->holds(mesh_.at) || share_->zero_stage() != mesh_.layout.zero_stage))
        share = share_of(mesh_.layout, me);
      ModelShare* target = mesh_.spare ? nullptr : share ? share.get() : share_.get();
      std::unique_ptr<parallel::ShardedOptimizer> next;
      if (target) next = optimizer_for(*target);
      if (mine && optimizer_ && next) next->take_state(*optimizer_);
      move_state(plan, optimizer_.get(), next.get());
      share_counters(source);
      comm.barrier(kPatience_s);  // everybody has everything: from here on the old layout is not needed
      optimizer_ = std::move(next);
      if (share || mesh_.spare) share_ = std::move(share);
      take_place();
      share_values();
      if (share_) share_->store().refresh(context_);
    } else {
      start_over();
      take_place();
    }
  }
  has_state_ = true;
  held_rank_ = me;
  held_workers_ = n;
  values_hash_.reset();
}

// A generation too small for one replica of the layout: nothing to do but to wait for others to join.
void Trainer::wait_for_workers() {
  const LayoutSpec& l = recipe_.layout;
  team_->phase("waiting for workers", static_cast<int64_t>(next_batch_));
  const std::string why =
      fmt::format("layout.pipeline {} x tensor {} x context {} needs {} workers, {} are here", l.pipeline,
                  l.tensor, l.context, l.pipeline * l.tensor * l.context, team_->size());
  team_->note("waiting", why);
  if (!hooks_.quiet) fmt::print(stderr, "\nwaiting: {}\n", why);
  for (const double end = monotonic_s() + kPatience_s; !team_->regroup_soon();) {
    if (stop_requested() || team_->stop_wanted())
      fail(ErrorKind::kCancelled, "stopped while waiting: {}", why);
    if (monotonic_s() >= end)
      fail(ErrorKind::kPeer,
           "{}, and nobody joined for {:.0f} s. The same command continues from the newest checkpoint.", why,
           kPatience_s);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// State that nobody holds any more: back to the newest checkpoint, all together.
void Trainer::start_over() {
  const std::string why =
      "a part of the state was lost with its last holder: going on from the newest checkpoint";
  if (team_->rank() == 0) team_->note("restart", why);
  if (!hooks_.quiet && speaks()) fmt::print(stderr, "\n{}\n", why);
  log_->write({{"event", "restart"}, {"step", step_}, {"why", why}});
  step_ = 0;
  next_batch_ = tokens_seen_ = 0;
  skips_in_a_row_ = 0;
  watch_.restore("");
  record_for_.reset();
  recorded_.reset();
  begin_together();
}

// The first generation: rank 0 reads or begins the run, the others follow what it found.
void Trainer::begin_together() {
  comm::Communicator& comm = team_->comm();
  optimizer_.reset();
  share_.reset();
  if (!mesh_.spare) {
    share_ = share_of(mesh_.layout, team_->rank());
    optimizer_ = optimizer_for(*share_);
  }
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

// The members agree that everybody can finish this batch, and that their weights and gradients are the same to the bit. From the
// moment this returns on one rank, every other can finish the batch by itself.
void Trainer::vote(const StepResult& result) {
  team_->phase("commit", step_);
  Vote mine;
  mine.clock = static_cast<int64_t>(next_batch_);
  mine.regroup = team_->regroup_soon();
  mine.stop = stop_requested() || team_->stop_wanted();
  mine.saved = saved_part(false);
  mine.slowest_s = slowest_s_;
  bool decayed = false;
  if (share_) {
    const nn::ParameterStore& store = share_->store();
    mine.share = mesh_.at.pipeline * mesh_.layout.tensor + mesh_.at.tensor;
    mine.values = hash128(store.values().data, store.values().bytes());
    if (shards_values()) {
      const int64_t n = mesh_.shards(), me = mesh_.shard();
      mine.own = hash_values(me), mine.mirrored = hash_values((me + n - 1) % n);
    }
    if (!shards()) mine.gradients = hash128(store.grads().data, store.grads().bytes());
    // What this rank wrote last is not what it reads now. Sharded gradients have one owner and one mirror: each compares what it
    // holds with what came out of the sum.
    decayed = (shards() && hash_of_shards() != shard_hash_) ||
              (values_hash_ && *values_hash_ != hash_held_values());
  }
  if (decayed) mine.regroup |= 2;
  pending_ = result;
  std::vector<Vote> votes(static_cast<size_t>(team_->size()));
  team_->comm().all_gather(bytes_of(mine), std::as_writable_bytes(std::span(votes)));
  bool regroup_wanted = false;
  stop_agreed_ = false;
  int liar = -1;
  for (const Vote& v : votes) slowest_s_ = std::max(slowest_s_, v.slowest_s);
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
  if (odd == -1 && shards_values())
    for (int64_t r = 0; r < mesh_.layout.world_size(); ++r)
      if (votes[static_cast<size_t>(r)].own != votes[static_cast<size_t>(mesh_.mirror_of(r))].mirrored)
        odd = -2;
  if (odd == -1 && liar < 0) {
    regroup_after_ = regroup_wanted;
    std::vector<int64_t> saved;
    for (const Vote& v : votes) saved.push_back(v.saved);
    return settle_save(saved, false);
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
