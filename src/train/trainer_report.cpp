// What a run tells: log lines, the progress line, the sample ledger, evaluations, the summary.
#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/checked.h"
#include "base/clock.h"
#include "base/peak_memory.h"
#include "base/progress.h"
#include "train/trainer.h"

namespace stoker::train {
namespace {

constexpr double kLedgerPatience_s = 0.5;  // well below any deadline of those who wait

}  // namespace

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

void Trainer::open_ledger(uint64_t next_batch) {
  ledger_.reset();
  ledger_ = std::make_unique<Ledger>(
      fs_, recipe_.run_dir + "/ledger.jsonl", next_batch, static_cast<uint64_t>(recipe_.global_batch),
      team_ ? team_->generation() : 0, [this](uint64_t b) { return sources_of_batch(b); });
}

// Tried again, in a copy of the file without what is torn, for as long as the other workers' deadlines allow.
void Trainer::write_down(const LedgerLine& line) {
  const double began_s = monotonic_s();
  std::string trouble;
  for (double pause_s = 0.01;; pause_s *= 2) try {
      if (!trouble.empty()) open_ledger(line.batch);
      ledger_->write(line);
      break;
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kStorage || monotonic_s() - began_s + pause_s > kLedgerPatience_s) throw;
      trouble = e.what();
      std::this_thread::sleep_for(std::chrono::duration<double>(pause_s));
    }
  if (trouble.empty()) return;
  log_->write({{"event", "storage"}, {"batch", line.batch}, {"why", trouble}});
  if (team_)
    team_->note("storage", fmt::format("{} on {} had trouble writing the ledger, and has written it now: {}",
                                       team_->worker(), team_->host(), trouble));
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

double Trainer::mfu(double tokens_per_s) const {
  if (peak_flops_ <= 0) return 0;
  return tokens_per_s * train_flops_per_token(recipe_.model, recipe_.sequence_length) /
         std::max(peak_flops_, 1.0);
}

void Trainer::report(const StepResult& r, double seconds) {
  const double tokens = static_cast<double>(recipe_.global_batch * recipe_.sequence_length),
               rate = tokens / seconds;
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
               {"mfu", mfu(rate)},
               {"time_s", seconds},
               {"data_s", r.data_s},
               {"anatomy", anatomy},
               {"peak_bytes", peak_resident_bytes()},
               {"batch", next_batch_ - 1}});
  if (hooks_.quiet) return;
  const std::string line =
      fmt::format("step {}/{}  loss {:.4f}  norm {:.2f}  {:.0f} tokens/s  MFU {:.0f} %  {} left", step_,
                  recipe_.steps, r.loss, r.gradient_norm, tokens / smoothed_step_s_, mfu(rate) * 100,
                  human_duration(smoothed_step_s_ * static_cast<double>(recipe_.steps - step_)));
  if (isatty(STDERR_FILENO)) fmt::print(stderr, "\r\033[K{}", line), std::fflush(stderr);
  else if (step_ % std::max<int64_t>(1, recipe_.steps / 50) == 0 || step_ == recipe_.steps)
    fmt::print(stderr, "{}\n", line);
}

void Trainer::account(const StepResult& r) {
  const double seconds = monotonic_s() - batch_began_s_;
  busy_s_ += seconds;
  ++batches_done_;
  if (last_sound_) report(r, seconds);
}

// The summary, into the log too.
void Trainer::conclude() {
  summary_.steps = step_;
  summary_.seconds = busy_s_;
  summary_.tokens_per_s =
      batches_done_
          ? static_cast<double>(batches_done_ * recipe_.global_batch * recipe_.sequence_length) / busy_s_
          : 0;
  summary_.mfu = mfu(summary_.tokens_per_s);
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
}

}  // namespace stoker::train
