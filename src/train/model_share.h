// train/model_share.h
// The part of the model that this worker holds, and its part of the work: forward and backward of virtual ranks through its chunks,
// their gradients folded in the canonical tree, scoring. The whole model and everything alone when the layout has one worker.
// Gradients    of every fold of Holdings, summed over the replicas beside the backward. ZeRO 0 and 1: from the last virtual rank's
//              backward on, in the store's gradients after settle_sums(). ZeRO 2 and 3: shards() sends those of each virtual rank to
//              their owners; with one micro-batch a virtual rank and an undivided backward only two layers' gradients exist at a time
// Rounds       all replicas go through the same plan, be they given a virtual rank less: for what they do not have they go through the
//              motions that the others need (parallel/pipeline_run.h: absent), so nobody waits for one that waits for him
// Tensor       the store is that of the worker's share (spec/tensor_share.h). Gradients of weights that all tensor workers hold are
//              made whole when a virtual rank leaves them, so that the copies stay alike
// Context      the worker takes its tokens of every row. With n of them the tree has n V leaves: leaf c V + v is what worker c of a ring
//              makes of virtual rank v
// Determinism  the partials are those of the single worker's tree, for any split into stages and any schedule; with tensor or context
//              parallelism those of one worker group of the same kind
// Batches      are asked for in order, each once; kept while in flight
// Errors       as TransformerChunk; comm::PeerError
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/hash.h"
#include "checkpoint/checkpoint.h"
#include "comm/tree.h"
#include "data/loader/loader.h"
#include "model/transformer.h"
#include "parallel/gradient_shards.h"
#include "parallel/holdings.h"
#include "parallel/layer_gather.h"
#include "parallel/mesh.h"
#include "parallel/pipeline_run.h"
#include "parallel/ring_attention.h"
#include "parallel/span_sums.h"
#include "parallel/tensor_peers.h"
#include "train/recipe.h"

namespace stoker::train {

MicroBatch view(const data::Batch& batch);

class ModelShare final : public Scorer, private parallel::PipelineWorker, private PartWatch {
 public:
  // layout: fitted to the workers that are there.
  ModelShare(const Recipe& recipe, const LayoutSpec& layout, const MeshCoordinates& at,
             ops::Context& context);
  nn::ParameterStore& store() { return store_; }
  const parallel::Holdings& holdings() const { return holdings_; }
  // Does a worker there hold the same weights?
  bool holds(const MeshCoordinates& at) const { return at.pipeline == stage_ && at.tensor == tensor_.rank; }
  // How row i of store().parameters() lies in the whole model's.
  const ShareCut& cut(size_t i) const { return cuts_.at(i); }
  const ShareCut& cut_of(const std::string& name) const;
  // A tensor of a checkpoint, shaped like the parameter `like`, or what of it this worker holds. `into`: as the parameter here.
  void load(const checkpoint::Checkpoint& saved, const std::string& name, const std::string& like,
            TensorView into) const;
  // The weights of a new run: this worker's part of a parameter.
  void init_row(const nn::Parameter& parameter, float* out) const;

  int64_t zero_stage() const { return layout_.zero_stage; }
  static nn::StoreRings rings(const Recipe& recipe, const LayoutSpec& layout);

  // Before gradients() and whenever workers or virtual ranks change: with whom, and for ZeRO 3 who has this worker's values. Mesh
  // and masters must outlive the place.
  void take_place(const parallel::Mesh& mesh, const parallel::ShardedOptimizer& masters);
  // The virtual ranks of this replica, in the order of their micro-batches; of any.
  const std::vector<int>& leaves() const { return leaves_; }
  std::vector<int> leaves_of(int64_t replica) const;
  // next() gives the micro-batches of the virtual ranks in order. Adds each leaf's loss where it is known (the last stage,
  // its first tensor worker).
  void gradients(const std::function<void(data::Batch&)>& next, float grad_scale, std::span<double> losses);
  parallel::GradientShards* shards() { return shards_.get(); }
  // ZeRO 0 and 1: until the sums that gradients() has begun are in the store's gradients.
  void settle_sums();
  // What this worker has added to the sums, as a hash; repeat(): what it would be if it had the virtual ranks of another replica (all
  // replicas repeat something at the same time, and what gradients() made stays as it was). For audits: sign() before gradients().
  void sign(bool on) { signing_ = on; }
  Hash128 signature() const { return signature_.digest(); }
  Hash128 repeat(int64_t replica, const std::function<void(data::Batch&)>& next, float grad_scale);
  void flip_once() { flip_ = true; }  // one wrong bit in what it adds next: chaos
  void reset();                       // the sums have been used
  void values_changed();              // what has been gathered is old
  double gather_s() const { return gather_ ? gather_->waited_s() : 0; }  // since take_place()
  double loss(
      const MicroBatch& batch) override;  // all stages of a pipeline call it together; all get the result
  // A tied embedding's new values to the stage that only reads them. All stages of a pipeline call it together.
  void share_read_only();
  // Leaves of the tree: what losses is as long as.
  static int leaves_of_tree(const Recipe& recipe, const LayoutSpec& layout) {
    return recipe.virtual_ranks * static_cast<int>(layout.context);
  }
  static int64_t micro_batches_per_leaf(const Recipe& r) {
    return r.global_batch / r.micro_batch / r.virtual_ranks;
  }
  // Bytes of activations, logits and of what tensor and context peers need, from the walk that allocates them.
  static size_t activation_bytes(const Recipe& recipe, const LayoutSpec& layout, int64_t stage,
                                 int64_t leaves);
  // The scratch that the chunks of the stage take turns in.
  static size_t scratch_bytes(const Recipe& recipe, const LayoutSpec& layout, int64_t stage);

 private:
  void forward(int chunk, int64_t micro_batch) override;
  void backward(int chunk, int64_t micro_batch) override;
  void weights(int chunk, int64_t micro_batch) override;
  void absent(const parallel::PipelineAction& action) override;
  std::span<std::byte> input(int chunk, int64_t micro_batch) override;
  std::span<const std::byte> output(int chunk) override;
  std::span<std::byte> gradient(int chunk) override;
  std::span<const std::byte> lookups(int64_t leaf) override;
  size_t lookup_bytes(int64_t leaf) override;
  void take_lookups(int64_t leaf, std::span<const std::byte> rows) override;

  int slot(int chunk, int64_t micro_batch) const;
  const data::Batch& batch(int64_t micro_batch);
  // A batch's tokens that this worker takes; into `out` where that is not all of them.
  const data::Batch& own_tokens(const data::Batch& whole, data::Batch& out) const;
  void sum_partial_gradients(const ChunkSpec& chunk, int64_t layer);
  int leaf_number(int64_t leaf) const {
    return static_cast<int>(context_rank_) * recipe_.virtual_ranks + leaves_[static_cast<size_t>(leaf)];
  }
  void enter(int64_t part, Pass pass) override;
  void leave(int64_t part, Pass pass) override;
  int64_t next_part(int64_t part, Pass pass) const;
  int chunk_of(int64_t layer) const;
  void finish(size_t fold, int64_t leaf, float* gradient);
  void give(size_t fold, int64_t leaf, float* gradient);
  void complete(size_t fold);
  void sign(std::span<const float> added);
  void flip(float* added);
  std::vector<float*> partials(size_t fold);
  std::unique_ptr<parallel::PipelineRun> run_of(size_t leaves) const;
  std::vector<std::unique_ptr<comm::TreeAccumulator>> trees_of(const std::vector<int>& leaves) const;
  bool in_shards() const { return layout_.zero_stage >= 2; }
  void make_chunks(const std::vector<int>& slots);
  void begin_leaf(int chunk);
  void end_leaf(int chunk, int64_t leaf);
  float* fold_gradient(const parallel::HeldFold& fold) const {
    return store_.stretch(fold.blocks.front().flat, fold.size()).grad.as<float>();
  }

  const Recipe& recipe_;
  LayoutSpec layout_;
  int64_t stage_, per_leaf_;  // micro-batches of a virtual rank
  TensorPlace tensor_;
  ModelSpec model_;  // this worker's share
  int64_t context_rank_ = 0;
  ops::Context& context_;
  nn::ParameterStore store_;
  parallel::Holdings holdings_;
  std::vector<ShareCut> cuts_;  // of store_.parameters()
  comm::Communicator *line_ = nullptr, *replicas_ = nullptr, *ring_ = nullptr;
  const parallel::ShardedOptimizer* masters_ = nullptr;
  std::unique_ptr<parallel::CommTensorPeers> tensor_peers_;
  std::unique_ptr<parallel::RingAttention> ring_attention_;
  std::vector<int> leaves_;
  bool split_ = false;  // weights' gradients come later
  std::unique_ptr<parallel::GradientShards> shards_;
  std::unique_ptr<parallel::SpanSums> sums_;
  std::unique_ptr<parallel::LayerGather> gather_;
  parallel::Dealing dealing_;
  int64_t closing_ = -1;                   // the virtual rank whose last micro-batch is leaving its layers
  bool eager_ = false;                     // two layers' gradients have the memory of all
  bool idle_ = false, repeating_ = false;  // going through the motions: for the others' sake, for an audit
  bool signing_ = false, flip_ = false;
  Hasher signature_;  // of what was added
  std::unique_ptr<parallel::PipelineRun> run_;
  std::vector<int> slots_;
  std::vector<std::unique_ptr<TransformerChunk>> chunks_;
  std::vector<std::unique_ptr<comm::TreeAccumulator>>
      trees_;  // of folds; empty with one virtual rank: it is the sum

  // Of the gradients() in progress
  const std::function<void(data::Batch&)>* next_ = nullptr;
  std::span<double> losses_;
  float grad_scale_ = 0;
  int64_t first_batch_ = 0;  // number of batches_.front()
  std::deque<data::Batch> batches_;
  std::vector<data::Batch> spare_batches_;
  data::Batch whole_batch_, scored_;
  std::map<int64_t, nn::LookupGradient> awaited_;         // per leaf, at the head of a tied model
  std::map<int64_t, std::vector<float>> awaiting_folds_;  // per leaf: the head's part of its gradient
  std::vector<float> leaving_fold_;  // the last of them to be whole: it may be on its way
};

}  // namespace stoker::train
