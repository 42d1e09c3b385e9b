// train/trainer.h
// One process, one run: resume or begin, then steps of (gradients of V virtual ranks, their tree sum, clip, update), with
// evaluation, checkpoints beside the training, and policies for bad losses.
// Batch         batch n holds samples n*G .. n*G+G-1; virtual rank v the v-th part of them, in micro-batches, in order
// Loss scale    loss and gradients are means over the positions of the global batch that have a target: G*T, less what rows of a packing
//               plan leave empty
// Resume        by the same command: the newest committed checkpoint of the run directory; refuses another dataset or recipe
//               (Usage, naming what differs). The first step after it is compared with what the run before recorded: loss
//               and gradient norm must be equal to the bit, or Internal says which differs and why that can be
// Determinism   weights after step n depend on (recipe identity, dataset, candidates, threads), not on crashes, evaluation or logging
// Layouts       recipe.layout over the workers of a team (parallel/mesh.h); weights do not depend on it (docs/same-bits.md). A death
//               is made good from the others' memory where somebody still has the state, else from the newest checkpoint
// Stops         Ctrl-C or SIGTERM: finishes the step, saves, throws Cancelled (exit code 75)
// Errors        Numeric: a bad loss under policy "stop", or max_skips in a row. Storage: a checkpoint that could not be written is a
//               warning in the log; the final one is an error
#pragma once
#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "checkpoint/background_writer.h"
#include "data/loader/feed.h"
#include "data/loader/prefetcher.h"
#include "io/faulty_file_system.h"
#include "parallel/mesh.h"
#include "parallel/sharded_optimizer.h"
#include "tensor/buffer.h"
#include "train/ledger.h"
#include "train/loss_watch.h"
#include "train/model_share.h"
#include "train/recipe.h"
#include "train/run_log.h"
#include "train/team.h"

namespace stoker::train {

struct Evaluation {
  double loss = 0;  // nats per token
  double bits_per_byte = 0;
  int64_t tokens = 0;
};

// What the trainer asks of the program around it.
struct TrainerHooks {
  std::function<Evaluation(Scorer&)> evaluate;  // may be empty
  std::string tokenizer_json;                   // kept in every checkpoint
  bool quiet = false;                           // no progress line
  Team* team = nullptr;                         // the other workers; null: this process is alone
  double timeout_s = 8;                         // with a team: of a collective, beside computing
  bool chaos = false;                           // obey RUN/chaos/<worker>: stoker chaos only
  io::FaultyFileSystem* faulty = nullptr;       // with chaos: what this process stores through
  int64_t audit_every = 0;  // with a team: check each other's gradients every so many batches
  int64_t until = 0;        // stop and save after this step, as if asked to; 0: never
};

struct RunSummary {
  int64_t steps = 0, first_step = 0;
  double loss = 0, seconds = 0, tokens_per_s = 0, mfu = 0;
  uint64_t peak_bytes = 0;  // most memory that was resident in this process
  std::optional<Evaluation> evaluation;
  std::string checkpoint, weights_hash;
};

// Usage error: the dataset's tokenizer has tokens that the model has no rows for.
void check_vocabulary(const Recipe& recipe, const data::Feed& feed);

class Trainer {
 public:
  Trainer(Recipe recipe, TrainerHooks hooks, io::FileSystem& fs);
  ~Trainer();
  RunSummary run();
  const Recipe& recipe() const { return recipe_; }

 private:
  static constexpr double kPatience_s = 600;  // where one rank reads or writes files while the others wait
  struct StepResult {
    double loss = 0, gradient_norm = 0, data_s = 0, compute_s = 0;
  };
  // Seconds that this process has waited for others since its generation formed, by what for: sums of gradients, values of
  // weights, the other stages of its pipeline, those who share its layers' width or its rows, agreement (votes, losses, norms).
  struct Exposed {
    double gradients = 0, weights = 0, pipeline = 0, tensor = 0, context = 0, agreement = 0;
    double beside_computing() const { return gradients + weights + pipeline + tensor + context; }
  };
  void begin_or_resume();
  void resume();
  void restore(const checkpoint::Checkpoint& saved);
  void initial_weights();
  int64_t steps_in(double minutes);
  StepResult gradients();
  void update(const StepResult& step);
  void check_replay(const StepResult& step);
  bool react(const StepResult& step);  // true: the update happens
  void roll_back(const std::string& why);
  void save();
  void resolve_schedule();
  void one_batch();
  float gradient_scale() const;
  void check_data(const checkpoint::TrainingState& saved) const;
  void log_data(uint64_t batch);
  std::vector<SourceShare> sources_of_batch(uint64_t batch) const;
  void own_gradients(std::vector<double>& losses, StepResult& result);
  double gradient_norm();
  void fill_values(const std::function<void(const nn::Parameter&, float*)>& read);
  float* gradient_sum(const parallel::HeldBlock& block, size_t count) const;
  Hash128 hash_values(int64_t worker) const;
  Hash128 hash_held_values() const;
  void finish_batch(const StepResult& step);
  void account(const StepResult& step);
  void conclude();

  // With a team (trainer_team.cpp)
  Progress progress() const;
  void regroup();
  void synchronise();
  void begin_together();
  void move_state(const parallel::MovePlan& plan, const parallel::ShardedOptimizer* from,
                  parallel::ShardedOptimizer* to);
  void wait_for_workers();
  void start_over();
  void find_place();
  void expect_slowness();
  Exposed exposed() const;
  void share_values();
  void wait_for_data();
  void share_counters(int source);
  void take_place();
  void open_ledger(uint64_t next_batch);
  void write_down(const LedgerLine& line);
  void sum_over_team(std::vector<double>& losses, StepResult& result);
  void take_shards();
  void vote(const StepResult& result);
  Hash128 hash_of_shards() const;
  void save_together();
  void save_if_settled();
  void finish_together();
  std::vector<checkpoint::TensorToSave> own_part();
  void add_rows(std::vector<checkpoint::TensorToSave>& out, size_t i, const std::string& name,
                checkpoint::Part part, int64_t from, int64_t to, const float* rows);
  int64_t saved_part(bool wait);
  void settle_save(std::span<const int64_t> parts, bool wait);
  void drop_save();
  void forget_save();
  bool ready_to_commit(bool wait);
  bool may_commit(int64_t step, bool wait);
  bool hash_stored_weights(bool wait);
  void add_replay_record();
  void inject_chaos();
  void limp(double computed_s);
  void flip_gradient_sum();
  // A second opinion on gradients (trainer_audit.cpp)
  bool audit_due() const;
  void audit_gradients();
  Hash128 gradient_hash(int64_t replica);
  void discard_damaged();
  void name_liar(int rank, const std::string& what);
  std::unique_ptr<ModelShare> share_of(const LayoutSpec& layout, int64_t rank);
  std::unique_ptr<parallel::ShardedOptimizer> optimizer_for(ModelShare& share);
  // Do replicas deal the updates between them?
  bool shards() const { return mesh_.layout.zero_stage > 0; }
  bool shards_gradients() const { return mesh_.layout.zero_stage >= 2; }
  bool shards_values() const { return mesh_.layout.zero_stage == 3; }
  bool speaks() const { return !hooks_.team || hooks_.team->rank() == 0; }
  void collect_saves(bool wait);
  void evaluate();
  void report(const StepResult& step, double seconds);
  double mfu(double tokens_per_s) const;  // 0 while the peak is not known
  void log_kernels();
  checkpoint::TrainingState state() const;

  Recipe recipe_;
  TrainerHooks hooks_;
  io::FileSystem& fs_;
  ops::Context context_;
  std::unique_ptr<data::Feed> loader_;
  parallel::Mesh mesh_;                // alone: one worker
  std::unique_ptr<ModelShare> share_;  // none: a spare worker
  std::unique_ptr<parallel::ShardedOptimizer> optimizer_;
  std::unique_ptr<data::Prefetcher> prefetcher_;
  std::unique_ptr<checkpoint::Store> checkpoints_;
  std::unique_ptr<checkpoint::BackgroundWriter> writer_;
  std::unique_ptr<RunLog> log_;
  LossWatch watch_;
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
  bool kernels_logged_ = false;
  size_t data_phase_ = 0;       // of the mixture, last written to the log
  uint64_t micro_batches_ = 0;  // of a batch, that this process computes

  Team* team_ = nullptr;
  std::optional<StepResult> pending_;   // voted for and not finished
  Hash128 shard_hash_;                  // of the summed gradients that this rank holds
  std::optional<Hash128> values_hash_;  // of the weights after this rank's last update
  struct SharedSave {
    int64_t step;
    double began_s;
    int64_t mine;  // as the vote says it
    std::string directory;
    std::optional<Hash128> weights;
    std::future<Hash128>
        hashing;  // rank 0 of a pipeline, once all parts are stored: the weights, from the files
  };
  std::optional<SharedSave> shared_save_;  // of this generation, not committed yet
  std::vector<Buffer> part_copies_;        // lent to the writer
  std::atomic<bool> stop_hashing_ = false;
  std::unique_ptr<Ledger> ledger_;
  bool has_state_ = false, stop_agreed_ = false, regroup_after_ = false, flip_gradients_ = false;
  int held_rank_ = -1, held_workers_ = 0;
  bool last_sound_ = false;
  Exposed exposed_before_;  // of the batch in progress
  double shared_s_ = 0, update_s_ = 0;
  double batch_began_s_ = 0, busy_s_ = 0, slowest_s_ = 0, limp_until_s_ = 0;
  int64_t batches_done_ = 0;
};

}  // namespace stoker::train
