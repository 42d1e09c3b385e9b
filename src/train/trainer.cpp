#include "train/trainer.h"

#include <unistd.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/stop.h"
#include "base/threads.h"
#include "ops/update.h"
#include "train/peak.h"

namespace stoker::train {
namespace {

double tree_sum(std::span<const double> x) {
  if (x.size() == 1) return x[0];
  const size_t middle = static_cast<size_t>(comm::split_of(0, static_cast<int>(x.size())));
  return tree_sum(x.first(middle)) + tree_sum(x.subspan(middle));
}

}  // namespace

Trainer::Trainer(Recipe recipe, TrainerHooks hooks, io::FileSystem& fs)
    : recipe_(std::move(recipe)),
      hooks_(std::move(hooks)),
      fs_(fs),
      watch_(recipe_.spike_window, recipe_.spike_sigma),
      team_(hooks_.team) {
  if (recipe_.threads) set_compute_threads(recipe_.threads);
  recipe_.threads = compute_threads();  // part of the run's identity: another number sums in another order
  if (!recipe_.kernels.empty()) context_.force(recipe_.kernels);
  loader_ = std::make_unique<data::Feed>(fs_, feed_options(recipe_));
  check_vocabulary(recipe_, *loader_);
  fs_.make_dirs(recipe_.run_dir);
  if (team_) {
    fs_.make_dirs(recipe_.run_dir + "/workers");
    log_ = std::make_unique<RunLog>(fmt::format("{}/workers/{}.jsonl", recipe_.run_dir, team_->worker()));
    if (recipe_.on_spike == Reaction::kRollback || recipe_.on_nan == Reaction::kRollback)
      fail(ErrorKind::kUsage, "policy rollback with several workers: expected skip or stop");
  } else {
    log_ = std::make_unique<RunLog>(recipe_.run_dir + "/log.jsonl");
  }
  checkpoints_ =
      std::make_unique<checkpoint::Store>(fs_, recipe_.run_dir + "/checkpoints", recipe_.keep_last);
  if (!team_) {
    if (recipe_.layout.world_size() > 1)
      fail(ErrorKind::kUsage,
           "layout.pipeline is {}, tensor {}, context {}, but this process is alone: start it with `stoker "
           "launch -n {} -- train ...`",
           recipe_.layout.pipeline, recipe_.layout.tensor, recipe_.layout.context,
           recipe_.layout.world_size());
    ops::Context fastest;  // what the machine can do, whatever train.kernels forces
    peak_flops_ = measure_peak(fastest, recipe_.precision, 0.6);
    mesh_.layout = parallel::fitted(recipe_.layout, 1);
    share_ = share_of(mesh_.layout, 0);
    optimizer_ = optimizer_for(*share_);
    share_->take_place(mesh_, *optimizer_);
    writer_ = std::make_unique<checkpoint::BackgroundWriter>(*checkpoints_);
  }
  micro_batches_ = static_cast<uint64_t>(recipe_.global_batch / recipe_.micro_batch);
}

Trainer::~Trainer() = default;

// The virtual ranks that this process holds, folded as far as they can be without the others.
void Trainer::own_gradients(std::vector<double>& losses, StepResult& result) {
  if (!share_) return;
  share_->gradients(
      [&](data::Batch& batch) {
        const double begin = monotonic_s();
        if (team_) wait_for_data();
        prefetcher_->next(batch);
        result.data_s += monotonic_s() - begin;
      },
      gradient_scale(), losses);
}

// Blocks of the parameters (parallel/holdings.h), each summed by its owner, added in order: the same bits in every layout.
double Trainer::gradient_norm() {
  std::vector<double> blocks(parallel::count_blocks(recipe_.model, recipe_.layout.tensor), 0.0);
  if (share_)
    for (const parallel::HeldFold& fold : share_->holdings().folds()) {
      const auto own = share_->holdings().owned_blocks(fold, mesh_.shards(), mesh_.shard());
      if (mesh_.at.tensor > 0) {  // the first tensor worker counts what all hold
        for (const parallel::HeldBlock& block : own)
          for (const parallel::Range& part : share_->holdings().counted(block))
            blocks[block.number] += ops::sum_squares(
                context_, view_of(gradient_sum(block, block.size) + (part.begin - block.local),
                                  Shape{static_cast<int64_t>(part.size())}));
        continue;
      }
      for (size_t i = 0; i < own.size();) {  // runs of whole blocks in one call: they are summed side by side
        size_t end = i + 1, count = own[i].size;
        while (end < own.size() && own[end].number == own[end - 1].number + 1 &&
               own[end - 1].size == parallel::kShardUnit &&
               own[end].flat == own[end - 1].flat + parallel::kShardUnit)
          count += own[end++].size;
        ops::sum_squares_blocks(context_,
                                view_of(gradient_sum(own[i], count), Shape{static_cast<int64_t>(count)}),
                                &blocks[own[i].number]);
        i = end;
      }
    }
  if (team_)
    team_->comm().all_reduce(std::span(blocks), comm::Reduce::kSum);  // each is nonzero on one rank only
  double total = 0;
  for (const double b : blocks) total += b;
  return std::sqrt(total);
}

float Trainer::gradient_scale() const {
  const auto rows = static_cast<uint64_t>(recipe_.global_batch);
  return static_cast<float>(1.0 / static_cast<double>(std::max<uint64_t>(
                                      1, loader_->targets_in(next_batch_ * rows, recipe_.global_batch))));
}

Trainer::StepResult Trainer::gradients() {
  std::vector<double> losses(static_cast<size_t>(ModelShare::leaves_of_tree(recipe_, recipe_.layout)), 0.0);
  StepResult result;
  if (team_) {
    team_->phase("compute", step_);
    const double begin = monotonic_s();
    if (share_) share_->sign(audit_due());
    own_gradients(losses, result);
    limp(monotonic_s() - begin);
    const double took = monotonic_s() - begin - result.data_s;
    slowest_s_ = std::max(slowest_s_ * 0.9, took);
    result.compute_s = took - (exposed().beside_computing() - exposed_before_.beside_computing());
    if (share_ && !share_->leaves().empty())  // a worker that waits for another one is not slow itself
      team_->step_done(result.compute_s / static_cast<double>(share_->leaves().size()));
    expect_slowness();
    audit_gradients();
    sum_over_team(losses, result);
  } else {
    const double begin = monotonic_s();
    own_gradients(losses, result);
    result.compute_s = monotonic_s() - begin - result.data_s;
    share_->settle_sums();
    share_->reset();
    result.gradient_norm = gradient_norm();
  }
  result.loss = tree_sum(losses) * static_cast<double>(gradient_scale());
  return result;
}

void Trainer::update(const StepResult& r) {
  if (!share_) return;
  writer_->before_update();
  const double clip = recipe_.clip_norm;
  const float scale = clip > 0 && r.gradient_norm > clip ? static_cast<float>(clip / r.gradient_norm) : 1.0f;
  optimizer_->update(
      context_, {static_cast<float>(optim::learning_rate(recipe_.schedule, step_ + 1)), step_ + 1, scale});
}

bool Trainer::react(const StepResult& r) {
  const Verdict verdict = watch_.judge(r.loss, r.gradient_norm);
  if (verdict == Verdict::kSound) {
    watch_.accept(r.loss);
    skips_in_a_row_ = 0;
    return true;
  }
  const Reaction reaction = verdict == Verdict::kSpike ? recipe_.on_spike : recipe_.on_nan;
  const std::string why = std::isfinite(r.gradient_norm)
                              ? watch_.describe(r.loss)
                              : fmt::format("loss is {}, gradient norm {}", r.loss, r.gradient_norm);
  const char* name = reaction == Reaction::kSkip ? "skip" : reaction == Reaction::kStop ? "stop" : "rollback";
  log_->write({{"event", name}, {"step", step_ + 1}, {"batch", next_batch_}, {"why", why}});
  if (!hooks_.quiet) fmt::print(stderr, "\nstep {}: {}: {}\n", step_ + 1, why, name);
  if (reaction == Reaction::kStop)
    fail(ErrorKind::kNumeric,
         "step {}: {}. The checkpoints before it are intact; lower optimizer.learning_rate or set "
         "policy.on_{} to skip or rollback.",
         step_ + 1, why, verdict == Verdict::kSpike ? "spike" : "nan");
  if (++skips_in_a_row_ > recipe_.max_skips)
    fail(ErrorKind::kNumeric,
         "step {}: {} bad batches in a row (policy.max_skips): the run has diverged. Lower "
         "optimizer.learning_rate and begin again.",
         step_ + 1, skips_in_a_row_);
  if (reaction == Reaction::kRollback) roll_back(why);
  return false;
}

// Everything of a batch that needs no other worker (but the sharing of updated values): decide, update, count.
void Trainer::finish_batch(const StepResult& r) {
  check_replay(r);
  const bool sound = react(r);
  const uint64_t batch = next_batch_;
  if (sound) {
    if (team_) team_->phase("update", step_);
    const double begin = monotonic_s();
    update(r);
    update_s_ = monotonic_s() - begin;
    ++step_;
    tokens_seen_ += static_cast<uint64_t>(recipe_.global_batch * recipe_.sequence_length);
  }
  ++next_batch_;
  last_sound_ = sound;
  if (!sound && prefetcher_) prefetcher_->seek(next_batch_ * micro_batches_);
  if (ledger_) {
    const auto samples = static_cast<uint64_t>(recipe_.global_batch);
    LedgerLine line{batch, batch * samples, samples, 0, step_, {}, {}};
    if (team_) line.generation = team_->generation();
    for (int rank = 0; team_ && rank < team_->size(); ++rank) line.workers.push_back(team_->worker(rank));
    line.sources = sources_of_batch(batch);
    write_down(line);
  }
  const auto& schedule = loader_->schedule();
  if (schedule.phase_of(next_batch_ * static_cast<uint64_t>(recipe_.global_batch)) != data_phase_ && speaks())
    log_data(next_batch_);
  collect_saves(false);
}

// One batch, from its samples to the next weights.
void Trainer::one_batch() {
  batch_began_s_ = monotonic_s();
  exposed_before_ = exposed();
  if (!team_) {
    const StepResult r = gradients();
    finish_batch(r);
    return account(r);
  }
  inject_chaos();
  const StepResult r = gradients();
  if (std::exchange(flip_gradients_, false)) flip_gradient_sum();
  vote(r);
  finish_batch(r);
  pending_.reset();
  try {
    share_values();
  } catch (const comm::PeerError&) {
    account(r);  // the step is done all the same
    throw;
  }
  if (share_) values_hash_ = hash_held_values();
  account(r);
}

RunSummary Trainer::run() {
  if (team_) regroup();
  else begin_or_resume();
  summary_.first_step = step_;
  log_->write({{"event", "start"},
               {"step", step_},
               {"steps", recipe_.steps},
               {"parameters", parameter_count(recipe_.model)},
               {"recipe", nlohmann::json::parse(recipe_.identity())},
               {"dataset", loader_->manifest_hash().hex()},
               {"peak_gflops", peak_flops_ * 1e-9},
               {"tokens_per_step", recipe_.global_batch * recipe_.sequence_length}});
  if (speaks()) log_data(next_batch_);
  int64_t evaluated = -1;
  while (step_ < recipe_.steps) {
    const int64_t before = step_;
    try {
      one_batch();
      const bool until = hooks_.until > 0 && step_ >= hooks_.until;
      const bool stop = until || (team_ ? stop_agreed_ : stop_requested()), last = step_ == recipe_.steps;
      const bool sound = step_ > before;
      if (sound && (stop || last || step_ % recipe_.checkpoint_every == 0)) {
        if (team_) save_if_settled();
        else save();
      }
      if (sound && recipe_.eval_every && step_ % recipe_.eval_every == 0) evaluate(), evaluated = step_;
      if (stop && !last) {
        if (team_) finish_together();
        collect_saves(true);
        log_->write({{"event", "stop"}, {"step", step_}});
        fail(ErrorKind::kCancelled, "stopped at step {} of {}; saved{}. The same command continues.", step_,
             recipe_.steps, summary_.checkpoint.empty() ? "" : " in " + summary_.checkpoint);
      }
      if (team_ && regroup_after_ && !last) regroup();
    } catch (const comm::PeerError& e) {
      if (!team_) throw;
      if (!hooks_.quiet) fmt::print(stderr, "\n{}\n", e.what());
      team_->lost(e);
      regroup();
    }
  }
  if (evaluated != step_) evaluate();
  if (team_) finish_together();
  collect_saves(true);
  if (ledger_) ledger_->close();
  if (!hooks_.quiet && isatty(STDERR_FILENO)) fmt::print(stderr, "\n");
  if (summary_.checkpoint.empty()) {
    const checkpoint::Checkpoint last = checkpoints_->open_latest();
    summary_.checkpoint = last.directory(), summary_.weights_hash = last.weights_hash().hex();
  }
  conclude();
  if (team_) team_->leave(true);
  return summary_;
}

}  // namespace stoker::train
