// Where a run begins: first weights, or those of its newest checkpoint, which has to be of the same recipe and data and has to
// replay the step after it.
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "io/atomic_write.h"
#include "model/hf_weights.h"
#include "train/trainer.h"

namespace stoker::train {
namespace {

std::string first_difference(const std::string& saved, const std::string& now) {
  const auto a = nlohmann::json::parse(saved), b = nlohmann::json::parse(now);
  for (const auto& [key, value] : a.items())
    if (!b.contains(key) || b[key] != value)
      return fmt::format("{} was {} and is now {}", key, value.dump(),
                         b.contains(key) ? b[key].dump() : "missing");
  return "a key is new";
}

}  // namespace

void check_vocabulary(const Recipe& recipe, const data::Feed& feed) {
  const int64_t vocabulary = feed.manifest().tokenizer.vocabulary;
  if (recipe.model.vocab < vocabulary)
    fail(
        ErrorKind::kUsage,
        "model.vocab is {}, but the dataset's tokenizer has {} tokens: expected model.vocab to be as many or "
        "more",
        recipe.model.vocab, vocabulary);
}

// read(parameter, out) gives a whole row; it goes where this worker keeps it, be it a part.
void Trainer::fill_values(const std::function<void(const nn::Parameter&, float*)>& read) {
  std::vector<float> row;
  for (const nn::Parameter& p : share_->store().parameters()) {
    if (!shards_values() || p.row.layer < 0) read(p, p.weight.value.as<float>());
    if (!shards_values() || !p.trained) continue;
    row.resize(static_cast<size_t>(p.row.count()));
    read(p, row.data());
    optimizer_->put(p.flat, row, 0);
  }
  share_->values_changed();
  share_->store().refresh(context_);
}

void Trainer::initial_weights() {
  if (!share_) return;
  if (recipe_.init_from.empty()) {
    fill_values([&](const nn::Parameter& p, float* out) { share_->init_row(p, out); });
  } else if (!shards_values()) {
    load_hf_weights(io::SafetensorsSet(fs_, recipe_.init_from), recipe_.model,
                    {mesh_.layout.tensor, mesh_.at.tensor}, share_->store());
    share_->store().refresh(context_);
  } else {
    nn::ParameterStore whole(recipe_.model, Precision::kFp32, false);
    load_hf_weights(io::SafetensorsSet(fs_, recipe_.init_from), whole);
    fill_values([&](const nn::Parameter& p, float* out) {
      take_share(share_->cut_of(p.row.name), whole.find(p.row.name).value.as<float>(), out);
    });
  }
  for (const NamedTensor& t : optimizer_->state()) std::memset(t.tensor.data, 0, t.tensor.bytes());
}

// Steps that fit into the time, by doing two whole steps on throwaway weights.
int64_t Trainer::steps_in(double minutes) {
  const std::string path = recipe_.run_dir + "/resolved.json";
  if (fs_.exists(path)) return nlohmann::json::parse(fs_.open_read(path)->text()).at("steps").get<int64_t>();
  initial_weights();
  recipe_.steps = recipe_.schedule.steps = 2;
  double seconds = 0;
  for (int i = 0; i < 2; ++i) {
    const double begin = monotonic_s();
    update(gradients());
    seconds = monotonic_s() - begin;  // the second, warm one
  }
  next_batch_ = tokens_seen_ = 0;
  step_ = 0;
  const int64_t steps = std::max<int64_t>(1, static_cast<int64_t>(minutes * 60 / seconds));
  io::write_file_atomic(fs_, path, nlohmann::json{{"steps", steps}, {"step_s", seconds}}.dump() + "\n");
  return steps;
}

void Trainer::resolve_schedule() {
  recipe_.schedule.steps = recipe_.steps;
  recipe_.schedule.warmup_steps =
      static_cast<int64_t>(std::llround(recipe_.warmup_ratio * static_cast<double>(recipe_.steps)));
  recipe_.schedule.decay_steps =
      static_cast<int64_t>(std::llround(recipe_.decay_ratio * static_cast<double>(recipe_.steps)));
}

void Trainer::restore(const checkpoint::Checkpoint& saved) {
  const checkpoint::TrainingState& s = saved.state();
  if (share_) {
    const auto load = [&](const std::string& name, const ParameterRow& row, float* out) {
      share_->load(saved, name, row.name, view_of(out, Shape{std::span<const int64_t>(row.shape)}));
    };
    fill_values([&](const nn::Parameter& p, float* out) { load(p.row.name, p.row, out); });
    if (!shards()) {
      for (const NamedTensor& t : optimizer_->state())
        share_->load(saved, t.name, t.name.substr(0, t.name.rfind('.')), t.tensor);
    } else {
      std::vector<float> row;
      const auto moments = optimizer_->moments();
      for (const nn::Parameter& p : share_->store().parameters()) {
        if (!p.trained) continue;
        row.resize(static_cast<size_t>(p.row.count()));
        for (size_t m = 0; m < moments.size(); ++m) {
          load(p.row.name + moments[m], p.row, row.data());
          optimizer_->put(p.flat, row, static_cast<int>(m) + 1);
        }
      }
    }
  }
  step_ = s.step;
  next_batch_ = s.next_batch;
  tokens_seen_ = s.tokens_seen;
  const auto extra = nlohmann::json::parse(s.trainer);
  watch_.restore(extra.value("losses", std::string()));
  skips_in_a_row_ = extra.value("skips_in_a_row", int64_t{0});
}

// What has been shown may not change; what comes may.
void Trainer::check_data(const checkpoint::TrainingState& saved) const {
  const auto extra = nlohmann::json::parse(saved.trainer, nullptr, false);
  const auto feed = extra.is_object() ? extra.value("feed", nlohmann::json()) : nlohmann::json();
  if (!feed.is_object()) {  // written before mixtures were known
    if (saved.manifest_hash != loader_->manifest_hash().hex())
      fail(ErrorKind::kUsage,
           "the run in {} was made from dataset {}, but this is dataset {}: give the dataset it began with, "
           "or "
           "another run.dir",
           recipe_.run_dir, saved.manifest_hash, loader_->manifest_hash().hex());
    return;
  }
  const auto samples = static_cast<uint64_t>(recipe_.global_batch);
  const std::string difference =
      loader_->past_difference(feed.dump(), checked_mul(saved.next_batch, samples, "samples"), samples);
  if (!difference.empty())
    fail(ErrorKind::kUsage,
         "the run in {} has been shown other data than this recipe says: {}. Give it back what it had, or "
         "give another run.dir",
         recipe_.run_dir, difference);
}

// From the newest checkpoint, if it is of this recipe and this data.
void Trainer::resume() {
  if (team_) discard_damaged();
  const checkpoint::Checkpoint saved = checkpoints_->open_latest();
  const checkpoint::TrainingState& s = saved.state();
  check_data(s);
  if (s.recipe_hash != hash128(recipe_.identity()))
    fail(ErrorKind::kUsage,
         "the run in {} has another recipe: {}. Give the recipe it began with, or another run.dir.",
         recipe_.run_dir, first_difference(s.recipe, recipe_.identity()));
  try {
    restore(saved);
  } catch (const Error& e) {  // tensors are compared with their hashes as they are read
    if (e.kind() == ErrorKind::kData) checkpoints_->fail_damaged(e.what());
    throw;
  }
  expected_ = saved.replay_record();
  const std::string before = nlohmann::json::parse(s.trainer).value("bit_class", std::string()),
                    now = bit_class(recipe_.layout);
  if (before != now) {  // the same weights and samples, sums in another order: nothing to compare with
    expected_.reset();
    log_->write({{"event", "bit_class"}, {"step", step_}, {"was", before}, {"is", now}});
    if (!hooks_.quiet && speaks())
      fmt::print(stderr, "the checkpoint was made by {}, this run adds as {}: other bits from here on\n",
                 before.empty() ? "whole layers" : before, now.empty() ? "whole layers" : now);
  }
  if (speaks()) checkpoints_->discard_after(step_);
  log_->write({{"event", "resume"},
               {"step", step_},
               {"checkpoint", saved.directory()},
               {"weights_hash", saved.weights_hash().hex()}});
  if (team_ && speaks()) team_->note("resume", fmt::format("at step {} from {}", step_, saved.directory()));
  if (!hooks_.quiet && speaks())
    fmt::print(stderr, "resuming at step {} from {}\n", step_, saved.directory());
}

void Trainer::begin_or_resume() {
  recipe_.schedule.warmup_steps = recipe_.schedule.decay_steps = 0;
  if (recipe_.minutes > 0) {
    prefetcher_ = std::make_unique<data::Prefetcher>(*loader_, recipe_.micro_batch, 0);
    recipe_.steps = steps_in(recipe_.minutes);
  }
  resolve_schedule();
  if (const uint64_t batches = loader_->end() / static_cast<uint64_t>(recipe_.global_batch);
      batches < static_cast<uint64_t>(recipe_.steps))
    fail(ErrorKind::kUsage, "the run has {} steps, but its data ends after {}: {}", recipe_.steps, batches,
         loader_->end_reason());
  if (checkpoints_->list().empty()) initial_weights();
  else resume();
  if (team_) return;  // take_place
  open_ledger(next_batch_);
  const uint64_t first = next_batch_ * micro_batches_;
  if (prefetcher_) prefetcher_->seek(first);
  else prefetcher_ = std::make_unique<data::Prefetcher>(*loader_, recipe_.micro_batch, first);
}

// Back to the newest checkpoint's weights, on with the batch after the bad one.
void Trainer::roll_back(const std::string& why) {
  collect_saves(true);
  const uint64_t bad = next_batch_;
  const int64_t skips = skips_in_a_row_;
  if (checkpoints_->list().empty())
    fail(ErrorKind::kNumeric, "step {}: {}, and there is no checkpoint to roll back to", step_ + 1, why);
  restore(checkpoints_->open_latest());
  next_batch_ = bad;  // run() moves on past it
  skips_in_a_row_ = skips;
  expected_.reset();
}

void Trainer::check_replay(const StepResult& r) {
  if (speaks() && record_for_ == step_) {  // that save may be committed only several steps later
    recorded_ = checkpoint::ReplayRecord{step_ + 1, r.loss, r.gradient_norm, {}};
    collect_saves(false);
  }
  if (!expected_) return;
  const checkpoint::ReplayRecord want = *std::exchange(expected_, std::nullopt);
  if (want.step != step_ + 1) return;
  if (want.loss == r.loss && want.gradient_norm == r.gradient_norm) {
    log_->write({{"event", "replay"}, {"step", want.step}, {"identical", true}});
    return;
  }
  fail(ErrorKind::kInternal,
       "step {} does not replay: the run before had loss {:a} and gradient norm {:a}, this one has {:a} and "
       "{:a}. The processor, the number of threads or the program changed, or memory is faulty (stoker "
       "doctor). "
       "Continue on the machine it began on, or start another run from the checkpoint with model.init_from.",
       want.step, want.loss, want.gradient_norm, r.loss, r.gradient_norm);
}

}  // namespace stoker::train
