#include "train/trainer.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/progress.h"
#include "base/stop.h"
#include "base/threads.h"
#include "io/atomic_write.h"
#include "model/hf_weights.h"
#include "ops/update.h"
#include "spec/hf_config.h"
#include "train/peak.h"

namespace stoker::train {
namespace {

double tree_sum(std::span<const double> x) {
  if (x.size() == 1) return x[0];
  const size_t middle = static_cast<size_t>(comm::split_of(0, static_cast<int>(x.size())));
  return tree_sum(x.first(middle)) + tree_sum(x.subspan(middle));
}

std::string first_difference(const std::string& saved, const std::string& now) {
  const auto a = nlohmann::json::parse(saved), b = nlohmann::json::parse(now);
  for (const auto& [key, value] : a.items())
    if (!b.contains(key) || b[key] != value)
      return fmt::format("{} was {} and is now {}", key, value.dump(),
                         b.contains(key) ? b[key].dump() : "missing");
  return "a key is new";
}

uint64_t peak_resident_bytes() {  // of this process so far
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  return static_cast<uint64_t>(use.ru_maxrss) * 1024;
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
           "launch -n {} -- train "
           "...`",
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

void Trainer::resolve_schedule() {
  recipe_.schedule.steps = recipe_.steps;
  recipe_.schedule.warmup_steps =
      static_cast<int64_t>(std::llround(recipe_.warmup_ratio * static_cast<double>(recipe_.steps)));
  recipe_.schedule.decay_steps =
      static_cast<int64_t>(std::llround(recipe_.decay_ratio * static_cast<double>(recipe_.steps)));
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
         "give "
         "another run.dir",
         recipe_.run_dir, difference);
}

// The account of the data: how far into which source the run is when batch `batch` begins.
void Trainer::log_data(uint64_t batch) {
  const auto sample = checked_mul(batch, static_cast<uint64_t>(recipe_.global_batch), "samples");
  const auto& schedule = loader_->schedule();
  data_phase_ = schedule.phase_of(std::min(sample, schedule.end() - 1));
  nlohmann::json sources = nlohmann::json::array();
  const auto used = loader_->used(0, std::min(sample, schedule.end()));
  for (size_t i = 0; i < used.size(); ++i)
    sources.push_back({{"name", used[i].name},
                       {"share", schedule.share(data_phase_, i)},
                       {"samples", used[i].samples},
                       {"epochs", used[i].epochs()}});
  log_->write(
      {{"event", "data"}, {"step", step_}, {"batch", batch}, {"phase", data_phase_}, {"sources", sources}});
}

// For the ledger: what a batch takes of each source; empty where there is one.
std::vector<SourceShare> Trainer::sources_of_batch(uint64_t batch) const {
  std::vector<SourceShare> out;
  if (loader_->sources() < 2) return out;
  const auto samples = static_cast<uint64_t>(recipe_.global_batch);
  for (const auto& use : loader_->used(batch * samples, samples))
    out.push_back({use.name, use.first, use.samples});
  return out;
}

void Trainer::open_ledger() {
  ledger_.reset();
  ledger_ = std::make_unique<Ledger>(
      recipe_.run_dir + "/ledger.jsonl", next_batch_, static_cast<uint64_t>(recipe_.global_batch),
      team_ ? team_->generation() : 0, [this](uint64_t b) { return sources_of_batch(b); });
}

void Trainer::begin_or_resume() {
  recipe_.schedule.warmup_steps = recipe_.schedule.decay_steps = 0;
  const auto listed = checkpoints_->list();
  if (recipe_.minutes > 0) {
    prefetcher_ = std::make_unique<data::Prefetcher>(*loader_, recipe_.micro_batch, 0);
    recipe_.steps = steps_in(recipe_.minutes);
  }
  resolve_schedule();
  if (const uint64_t batches = loader_->end() / static_cast<uint64_t>(recipe_.global_batch);
      batches < static_cast<uint64_t>(recipe_.steps))
    fail(ErrorKind::kUsage, "the run has {} steps, but its data ends after {}: {}", recipe_.steps, batches,
         loader_->end_reason());
  if (listed.empty()) {
    initial_weights();
  } else {
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
  if (team_) return;  // take_place
  open_ledger();
  const uint64_t first = next_batch_ * micro_batches_;
  if (prefetcher_) prefetcher_->seek(first);
  else prefetcher_ = std::make_unique<data::Prefetcher>(*loader_, recipe_.micro_batch, first);
}

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

void Trainer::check_replay(const StepResult& r) {
  if (speaks() &&
      record_for_ ==
          step_) {  // the first step after that save; it may take several more until the save is committed
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
       "{:a}. The processor, the number of "
       "threads or the program changed, or memory is faulty (stoker doctor). Continue on the machine it "
       "began on, or start another run from the "
       "checkpoint with model.init_from.",
       want.step, want.loss, want.gradient_norm, r.loss, r.gradient_norm);
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

checkpoint::TrainingState Trainer::state() const {
  checkpoint::TrainingState s;
  s.step = step_;
  s.next_batch = next_batch_;
  s.tokens_seen = tokens_seen_;
  s.manifest_hash = loader_->manifest_hash().hex();
  s.seed = recipe_.seed;
  s.recipe = recipe_.identity();
  s.recipe_hash = hash128(s.recipe);
  HfConfig config;
  config.model = recipe_.model;
  config.eos_token = loader_->manifest().tokenizer.eod >= 0 ? std::optional(loader_->manifest().tokenizer.eod)
                                                            : std::nullopt;
  config.bos_token = loader_->manifest().tokenizer.bos >= 0 ? std::optional(loader_->manifest().tokenizer.bos)
                                                            : config.eos_token;
  s.model_config = to_hf_config(config);
  s.software = "stoker " STOKER_VERSION;
  s.trainer = nlohmann::json{{"losses", watch_.state()},
                             {"skips_in_a_row", skips_in_a_row_},
                             {"bit_class", bit_class(recipe_.layout)},
                             {"feed", nlohmann::json::parse(loader_->description())}}
                  .dump();
  return s;
}

void Trainer::save() {
  collect_saves(true);
  std::vector<checkpoint::TensorToSave> tensors;
  for (const nn::Parameter& p : share_->store().parameters())
    tensors.push_back({p.row.name, p.weight.value, checkpoint::Part::kWeights});
  for (const NamedTensor& t : optimizer_->state())
    tensors.push_back({t.name, t.tensor, checkpoint::Part::kOptimizer});
  std::vector<checkpoint::Attachment> attachments;
  if (!hooks_.tokenizer_json.empty()) attachments.push_back({"tokenizer.json", hooks_.tokenizer_json});
  writer_->start(std::move(tensors), state(), std::move(attachments));
  record_for_ = step_;
  recorded_.reset();
  if (speaks()) log_data(next_batch_);
}

void Trainer::collect_saves(bool wait) {
  if (team_) return add_replay_record();
  if (const auto done = wait ? writer_->wait() : writer_->poll()) {
    nlohmann::json event{{"event", "checkpoint"},    {"step", done->step},
                         {"seconds", done->seconds}, {"stall_s", done->stall_s},
                         {"bytes", done->bytes},     {"staged_bytes", done->staged_bytes}};
    if (done->error) {
      event["error"] = done->error->what();
      if (!hooks_.quiet)
        fmt::print(stderr, "\ncheckpoint of step {} failed: {}\n", done->step, done->error->what());
      record_for_.reset();
      if (done->step == recipe_.steps) throw *done->error;
    } else {
      event["directory"] = done->directory;
      event["weights_hash"] = done->weights_hash.hex();
      summary_.checkpoint = done->directory;
      summary_.weights_hash = done->weights_hash.hex();
    }
    log_->write(event);
  }
  if (record_for_ && recorded_ && !writer_->busy() && checkpoints_->find(*record_for_)) {
    checkpoints_->add_replay_record(*record_for_, *recorded_);
    record_for_.reset();
    recorded_.reset();
  }
}

void Trainer::evaluate() {
  if (!hooks_.evaluate) return;
  if (team_) team_->phase("evaluate", step_);
  const double begin = monotonic_s();
  try {
    if (share_) summary_.evaluation = hooks_.evaluate(*share_);
    else return;
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::kCancelled)
      return;  // the loop sees the request after the next step, saves and leaves
    throw;
  }
  log_->write({{"event", "eval"},
               {"step", step_},
               {"loss", summary_.evaluation->loss},
               {"bits_per_byte", summary_.evaluation->bits_per_byte},
               {"tokens", summary_.evaluation->tokens},
               {"seconds", monotonic_s() - begin}});
  if (!hooks_.quiet && speaks())
    fmt::print(stderr, "{}step {}: held-out loss {:.4f}, {:.4f} bits per byte\n",
               isatty(STDERR_FILENO) ? "\r\033[K" : "", step_, summary_.evaluation->loss,
               summary_.evaluation->bits_per_byte);
}

// Which candidate each op took, and why the faster ones refused.
void Trainer::log_kernels() {
  nlohmann::json ops = nlohmann::json::object();
  for (const auto& [op, choice] : context_.choices())
    ops[op] = {{"candidate", choice.candidate}, {"refused", choice.refusals}};
  log_->write({{"event", "kernels"}, {"step", step_}, {"ops", ops}});
}

void Trainer::report(const StepResult& r, double seconds) {
  const double tokens = static_cast<double>(recipe_.global_batch * recipe_.sequence_length),
               rate = tokens / seconds;
  const double mfu = rate * train_flops_per_token(recipe_.model, recipe_.sequence_length) /
                     std::max(peak_flops_, 1.0) * (peak_flops_ > 0 ? 1 : 0);
  smoothed_step_s_ = smoothed_step_s_ > 0 ? 0.95 * smoothed_step_s_ + 0.05 * seconds : seconds;
  summary_.loss = r.loss;
  const Exposed now = exposed(), before = exposed_before_;
  std::map<std::string, double> anatomy{{"data", r.data_s}, {"compute", r.compute_s}, {"update", update_s_}};
  if (team_) {
    anatomy["wait for gradients"] = now.gradients - before.gradients;
    anatomy["wait for weights"] = now.weights - before.weights;
    anatomy["wait for agreement"] = now.agreement - before.agreement;
    if (mesh_.line) anatomy["wait for stages"] = now.pipeline - before.pipeline;
    if (mesh_.tensor) anatomy["wait for tensor"] = now.tensor - before.tensor;
    if (mesh_.context) anatomy["wait for context"] = now.context - before.context;
  }
  double known = 0;
  for (const auto& [what, spent_s] : anatomy) known += spent_s;
  anatomy["other"] = std::max(0.0, seconds - known);
  if (team_) team_->step_took(anatomy);
  if (!std::exchange(kernels_logged_, true)) log_kernels();
  if (!speaks()) {
    log_->write({{"event", "anatomy"}, {"step", step_}, {"time_s", seconds}, {"anatomy", anatomy}});
    return;
  }
  log_->write({{"event", "step"},
               {"step", step_},
               {"loss", r.loss},
               {"lr", optim::learning_rate(recipe_.schedule, step_)},
               {"grad_norm", r.gradient_norm},
               {"tokens", tokens_seen_},
               {"tokens_per_s", rate},
               {"mfu", mfu},
               {"time_s", seconds},
               {"data_s", r.data_s},
               {"anatomy", anatomy},
               {"peak_bytes", peak_resident_bytes()},
               {"batch", next_batch_ - 1}});
  if (hooks_.quiet) return;
  const std::string line =
      fmt::format("step {}/{}  loss {:.4f}  norm {:.2f}  {:.0f} tokens/s  MFU {:.0f} %  {} left", step_,
                  recipe_.steps, r.loss, r.gradient_norm, tokens / smoothed_step_s_, mfu * 100,
                  human_duration(smoothed_step_s_ * static_cast<double>(recipe_.steps - step_)));
  if (isatty(STDERR_FILENO)) fmt::print(stderr, "\r\033[K{}", line), std::fflush(stderr);
  else if (step_ % std::max<int64_t>(1, recipe_.steps / 50) == 0 || step_ == recipe_.steps)
    fmt::print(stderr, "{}\n", line);
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
    ledger_->write(line);
  }
  const auto& schedule = loader_->schedule();
  if (schedule.phase_of(next_batch_ * static_cast<uint64_t>(recipe_.global_batch)) != data_phase_ && speaks())
    log_data(next_batch_);
  collect_saves(false);
}

void Trainer::account(const StepResult& r) {
  const double seconds = monotonic_s() - batch_began_s_;
  busy_s_ += seconds;
  ++batches_done_;
  if (last_sound_) report(r, seconds);
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
  if (!hooks_.quiet && isatty(STDERR_FILENO)) fmt::print(stderr, "\n");
  if (summary_.checkpoint.empty()) {
    const checkpoint::Checkpoint last = checkpoints_->open_latest();
    summary_.checkpoint = last.directory(), summary_.weights_hash = last.weights_hash().hex();
  }
  summary_.steps = step_;
  summary_.seconds = busy_s_;
  summary_.tokens_per_s =
      batches_done_
          ? static_cast<double>(batches_done_ * recipe_.global_batch * recipe_.sequence_length) / busy_s_
          : 0;
  summary_.mfu = summary_.tokens_per_s * train_flops_per_token(recipe_.model, recipe_.sequence_length) /
                 std::max(peak_flops_, 1.0) * (peak_flops_ > 0 ? 1 : 0);
  summary_.peak_bytes = peak_resident_bytes();
  log_->write({{"event", "end"},
               {"step", step_},
               {"rank", team_ ? team_->rank() : 0},
               {"loss", summary_.loss},
               {"seconds", busy_s_},
               {"tokens_per_s", summary_.tokens_per_s},
               {"mfu", summary_.mfu},
               {"peak_bytes", summary_.peak_bytes},
               {"weights_hash", summary_.weights_hash}});
  if (team_) team_->leave(true);
  return summary_;
}

}  // namespace stoker::train
