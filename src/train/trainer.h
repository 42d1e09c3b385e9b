// train/trainer.h
// One process, one run: resume or begin, then steps of (gradients of V virtual ranks, their tree sum, clip, update), with
// evaluation, checkpoints beside the training, and policies for bad losses.
// Batch         batch n holds samples n*G .. n*G+G-1; virtual rank v the v-th part of them, in micro-batches, in order
// Loss scale    gradients are means over the G*T positions of the global batch
// Resume        by the same command: the newest committed checkpoint of the run directory; refuses another dataset or recipe
//               (Usage, naming what differs). The first step after it is compared with what the run before recorded: loss
//               and gradient norm must be equal to the bit, or Internal says which differs and why that can be
// Determinism   weights after step n depend on (recipe identity, dataset, candidates, threads), not on crashes, evaluation or logging
// Stops         Ctrl-C or SIGTERM: finishes the step, saves, throws Cancelled (exit code 75)
// Errors        Numeric: a bad loss under policy "stop", or max_skips in a row. Storage: a checkpoint that could not be written is a
//               warning in the log; the final one is an error
#pragma once
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "checkpoint/background_writer.h"
#include "comm/tree.h"
#include "data/loader/loader.h"
#include "data/loader/prefetcher.h"
#include "model/transformer.h"
#include "train/loss_watch.h"
#include "train/recipe.h"
#include "train/run_log.h"

namespace stoker::train {

struct Evaluation {
  double loss = 0;  // nats per token
  double bits_per_byte = 0;
  int64_t tokens = 0;
};

// What the trainer asks of the program around it.
struct TrainerHooks {
  std::function<Evaluation(Transformer&)> evaluate;  // may be empty
  std::string tokenizer_json;                        // kept in every checkpoint
  bool quiet = false;                                // no progress line
};

struct RunSummary {
  int64_t steps = 0, first_step = 0;
  double loss = 0, seconds = 0, tokens_per_s = 0, mfu = 0;
  std::optional<Evaluation> evaluation;
  std::string checkpoint, weights_hash;
};

// Fills in what a recipe leaves to the dataset: the vocabulary.
void resolve_with_dataset(Recipe& recipe, const data::Loader& loader);
MicroBatch view(const data::Batch& batch);

class Trainer {
 public:
  Trainer(Recipe recipe, TrainerHooks hooks, io::FileSystem& fs);
  ~Trainer();
  RunSummary run();
  const Recipe& recipe() const { return recipe_; }

 private:
  struct StepResult {
    double loss = 0, gradient_norm = 0, data_s = 0;
  };
  void begin_or_resume();
  void restore(const checkpoint::Checkpoint& saved);
  void initial_weights();
  int64_t steps_in(double minutes);
  StepResult gradients();
  void update(const StepResult& step);
  void check_replay(const StepResult& step);
  bool react(const StepResult& step);  // true: the update happens
  void roll_back(const std::string& why);
  void save();
  void collect_saves(bool wait);
  void evaluate();
  void report(const StepResult& step, double seconds);
  checkpoint::TrainingState state() const;

  Recipe recipe_;
  TrainerHooks hooks_;
  io::FileSystem& fs_;
  ops::Context context_;
  std::unique_ptr<data::Loader> loader_;
  std::unique_ptr<nn::ParameterStore> store_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<comm::TreeAccumulator> tree_;
  std::unique_ptr<data::Prefetcher> prefetcher_;
  std::unique_ptr<checkpoint::Store> checkpoints_;
  std::unique_ptr<checkpoint::BackgroundWriter> writer_;
  std::unique_ptr<RunLog> log_;
  LossWatch watch_;
  data::Batch batch_;
  double peak_flops_ = 0;

  int64_t step_ = 0;  // done
  uint64_t next_batch_ = 0;
  uint64_t tokens_seen_ = 0;
  int64_t skips_in_a_row_ = 0;
  std::optional<checkpoint::ReplayRecord> expected_;  // of step_ + 1, after a resume
  std::optional<int64_t> record_for_;                 // checkpoint whose next step is not recorded yet
  std::optional<checkpoint::ReplayRecord> recorded_;  // waits for that checkpoint to be committed
  RunSummary summary_;
  double smoothed_step_s_ = 0;
};

}  // namespace stoker::train
