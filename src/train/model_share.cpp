#include "train/model_share.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "model/hf_weights.h"

namespace stoker::train {
namespace {

template <typename View>
std::span<std::byte> bytes_of(const View& v) {
  return {static_cast<std::byte*>(v.data), v.bytes()};
}

ChunkOptions chunk_options(const Recipe& r, const LayoutSpec& l, int slots, bool split) {
  ChunkOptions o{r.micro_batch, r.sequence_length / l.context, r.recompute, true, slots, split};
  o.tensor = l.tensor, o.split_rows = l.sequence_parallel;
  o.vocab = r.model.vocab, o.row_length = r.sequence_length;
  return o;
}

parallel::RingShape ring_shape(const Recipe& r, const ModelSpec& share) {
  return {r.micro_batch,  r.sequence_length, share.heads,
          share.kv_heads, share.head_dim,    r.precision == Precision::kBf16 ? Dtype::kBf16 : Dtype::kF32};
}

bool splits_backward(const LayoutSpec& l) {
  return l.schedule == PipelineSchedule::kZeroBubble && l.pipeline > 1;
}

std::string embedding_name(const ModelSpec& m) {
  return m.family == Family::kGpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight";
}

}  // namespace

MicroBatch view(const data::Batch& b) {
  return {b.rows, b.length, b.tokens, b.targets, b.positions, b.document_start};
}

ModelShare::ModelShare(const Recipe& recipe, const LayoutSpec& layout, const MeshCoordinates& at,
                       ops::Context& context)
    : recipe_(recipe),
      layout_(layout),
      stage_(at.pipeline),
      per_leaf_(micro_batches_per_leaf(recipe)),
      tensor_{layout.tensor, at.tensor},
      model_(tensor_share(recipe.model, tensor_)),
      context_(context),
      store_(model_, recipe.precision, true, parallel::chunks_of(layout, recipe.model, at.pipeline),
             rings(recipe, layout), share_offset(recipe.model, tensor_)),
      holdings_(recipe.model, layout, at.pipeline, at.tensor),
      split_(splits_backward(layout)),
      eager_(rings(recipe, layout).gradients) {
  std::map<std::string, const ParameterRow*> rows;
  const std::vector<ParameterRow> table = parameter_table(recipe.model);
  for (const ParameterRow& row : table) rows[row.name] = &row;
  for (const nn::Parameter& p : store_.parameters())
    cuts_.push_back(share_cut(recipe.model, tensor_, *rows.at(p.row.name)));
}

void ModelShare::init_row(const nn::Parameter& p, float* out) const {
  const auto std = static_cast<float>(recipe_.init_std);
  if (tensor_.size == 1) return nn::ParameterStore::init_row(recipe_.model, p.row, recipe_.seed, std, out);
  const ShareCut& cut = cut_of(p.row.name);  // the whole tensor's values, whoever holds which of them
  ParameterRow row = p.row;
  row.shape[0] = cut.whole_rows;
  if (row.shape.size() > 1) row.shape[1] = cut.whole_columns;
  std::vector<float> whole(static_cast<size_t>(row.count()));
  nn::ParameterStore::init_row(recipe_.model, row, recipe_.seed, std, whole.data());
  take_share(cut, whole.data(), out);
}

const ShareCut& ModelShare::cut_of(const std::string& name) const {
  size_t i = 0;
  while (store_.parameters().at(i).row.name != name) ++i;
  return cuts_[i];
}

void ModelShare::load(const checkpoint::Checkpoint& saved, const std::string& name, const std::string& like,
                      TensorView into) const {
  const ShareCut& cut = cut_of(like);
  if (cut.replicated) return saved.load(name, into);
  if (!cut.cuts_columns()) {
    int64_t at = 0;
    for (const ShareCut::Stretch& s : cut.rows) {
      saved.load_rows(name, s.begin, s.end, into.slice_rows(at, at + s.end - s.begin));
      at += s.end - s.begin;
    }
    return;
  }
  constexpr int64_t kFloats = 4 << 20;  // of whole rows in memory at a time
  const int64_t rows = std::clamp<int64_t>(kFloats / cut.whole_columns, 1, cut.whole_rows);
  std::vector<float> whole(static_cast<size_t>(rows * cut.whole_columns));
  for (int64_t begin = 0; begin < cut.whole_rows; begin += rows) {
    const int64_t end = std::min(cut.whole_rows, begin + rows);
    saved.load_rows(name, begin, end, view_of(whole.data(), {end - begin, cut.whole_columns}));
    ShareCut part = cut;
    part.rows = {{0, end - begin}};
    take_share(part, whole.data(), into.as<float>() + begin * cut.columns);
  }
}

nn::StoreRings ModelShare::rings(const Recipe& r, const LayoutSpec& l) {
  if (parallel::replicas(l) == 1) return {};
  return {l.zero_stage >= 2 && micro_batches_per_leaf(r) == 1 && !splits_backward(l), l.zero_stage == 3};
}

std::vector<int> ModelShare::leaves_of(int64_t replica) const {
  std::vector<int> out;
  if (in_shards()) {
    for (int64_t r = 0; r < dealing_.rounds(); ++r)
      if (const int64_t v = dealing_.virtual_rank(replica, r); v < recipe_.virtual_ranks)
        out.push_back(static_cast<int>(v));
    return out;
  }
  const comm::LeafSpan span =
      comm::leaves_of(static_cast<int>(replica), static_cast<int>(layout_.data), recipe_.virtual_ranks);
  for (int leaf = span.begin; leaf < span.end; ++leaf) out.push_back(leaf);
  return out;
}

std::unique_ptr<parallel::PipelineRun> ModelShare::run_of(size_t leaves) const {
  return std::make_unique<parallel::PipelineRun>(layout_, stage_, dealing_.rounds(),
                                                 static_cast<int64_t>(leaves), per_leaf_,
                                                 recipe_.model.tied_embeddings, line_);
}

std::vector<std::unique_ptr<comm::TreeAccumulator>> ModelShare::trees_of(
    const std::vector<int>& leaves) const {
  std::vector<std::unique_ptr<comm::TreeAccumulator>> trees;
  if (recipe_.virtual_ranks == 1 || in_shards()) return trees;
  const int first = static_cast<int>(context_rank_) * recipe_.virtual_ranks;
  const comm::LeafSpan span =
      leaves.empty() ? comm::LeafSpan{} : comm::LeafSpan{first + leaves.front(), first + leaves.back() + 1};
  for (const parallel::HeldFold& f : holdings_.folds())
    trees.push_back(
        std::make_unique<comm::TreeAccumulator>(span, leaves_of_tree(recipe_, layout_), f.size()));
  return trees;
}

void ModelShare::make_chunks(const std::vector<int>& slots) {
  chunks_.clear();
  slots_ = slots;
  const auto chunks = parallel::chunks_of(layout_, recipe_.model, stage_);
  PartWatch* watch = this;
  for (size_t c = 0; c < chunks.size(); ++c)
    chunks_.push_back(std::make_unique<TransformerChunk>(
        store_, chunks[c], chunk_options(recipe_, layout_, slots_[c], split_), context_, watch,
        nn::BlockPeers{tensor_peers_.get(), ring_attention_.get()}));
}

void ModelShare::take_place(const parallel::Mesh& mesh, const parallel::ShardedOptimizer& masters) {
  line_ = mesh.line.get();
  ring_ = mesh.context.get();
  replicas_ = mesh.replicas.get();
  context_rank_ = mesh.at.context;
  masters_ = &masters;
  layout_.data = mesh.layout.data;
  dealing_ = {layout_.data, layout_.context, recipe_.virtual_ranks};
  idle_ = repeating_ = false;  // a death may have come in the middle of either
  leaves_ = leaves_of(mesh.at.data);
  run_ = run_of(leaves_.size());
  const bool peers = mesh.tensor || mesh.context;
  if (peers) chunks_.clear();  // they know the workers of before
  tensor_peers_.reset();
  ring_attention_.reset();
  if (mesh.tensor)
    tensor_peers_ = std::make_unique<parallel::CommTensorPeers>(*mesh.tensor, layout_.sequence_parallel);
  if (mesh.context)
    ring_attention_ = std::make_unique<parallel::RingAttention>(*mesh.context, ring_shape(recipe_, model_));
  if (peers || slots_ != run_->plan().slots) make_chunks(run_->plan().slots);
  trees_ = trees_of(leaves_);
  shards_.reset();
  sums_.reset();
  gather_.reset();
  if (!in_shards() && mesh.shards() > 1)
    sums_ =
        std::make_unique<parallel::SpanSums>(holdings_, parallel::leaf_spans(layout_, recipe_.virtual_ranks),
                                             *replicas_, layout_.zero_stage == 0, store_.grads().as<float>());
  if (!in_shards()) return;
  shards_ = std::make_unique<parallel::GradientShards>(holdings_, dealing_, *replicas_);
  if (layout_.zero_stage == 3)
    gather_ = std::make_unique<parallel::LayerGather>(holdings_, store_, *replicas_, context_);
}

Hash128 ModelShare::repeat(int64_t replica, const std::function<void(data::Batch&)>& next, float grad_scale) {
  if (shards_) shards_->settle();
  auto own = std::exchange(leaves_, leaves_of(replica));
  auto own_run = std::exchange(run_, run_of(leaves_.size()));
  auto own_trees = std::exchange(trees_, trees_of(leaves_));
  Hasher own_signature = std::exchange(signature_, Hasher());
  std::vector<float> own_sum;  // with one virtual rank the gradients themselves
  if (trees_.empty() && !in_shards())
    own_sum.assign(store_.grads().as<float>(), store_.grads().as<float>() + store_.grads().count());
  std::vector<int> slots = slots_;  // another number of micro-batches may have more of them in flight
  for (size_t c = 0; c < slots.size(); ++c) slots[c] = std::max(slots[c], run_->plan().slots[c]);
  if (slots != slots_) make_chunks(slots);
  std::vector<double> losses(static_cast<size_t>(leaves_of_tree(recipe_, layout_)), 0.0);
  repeating_ = true;
  gradients(next, grad_scale, losses);
  repeating_ = false;
  const Hash128 made = signature();
  std::copy(own_sum.begin(), own_sum.end(), store_.grads().as<float>());
  leaves_ = std::move(own);
  run_ = std::move(own_run);
  trees_ = std::move(own_trees);
  signature_ = std::move(own_signature);
  return made;
}

void ModelShare::gradients(const std::function<void(data::Batch&)>& next, float grad_scale,
                           std::span<double> losses) {
  next_ = &next;
  losses_ = losses;
  grad_scale_ = grad_scale;
  first_batch_ = 0;
  batches_.clear();
  awaited_.clear();
  awaiting_folds_.clear();
  signature_ = Hasher();
  if (leaves_.empty() && recipe_.virtual_ranks == 1 && !in_shards()) store_.zero_grads();
  run_->run(*this);
  batches_.clear();
}

// One wrong bit: chaos.
void ModelShare::flip(float* added) {
  if (!flip_ || repeating_) return;
  flip_ = false;
  *reinterpret_cast<uint8_t*>(added) ^= 0x04;
}

void ModelShare::sign(std::span<const float> added) {
  if (!signing_ && !repeating_) return;
  const Hash128 hash = hash128(added.data(), added.size_bytes());
  signature_.update(&hash, sizeof hash);
}

// A fold's gradient of one virtual rank is whole; null: this worker has no such virtual rank. Where there is only one it is the sum.
void ModelShare::finish(size_t f, int64_t leaf, float* gradient) {
  if (in_shards()) return give(f, leaf, gradient);
  if (gradient && !trees_.empty()) {
    const int v = leaf_number(leaf);
    std::memcpy(trees_[f]->open(v), gradient, holdings_.folds()[f].size() * sizeof(float));
    trees_[f]->close(v);
  }
  if (leaf + 1 == dealing_.rounds()) complete(f);
}

// ZeRO 2 and 3: to the owners of its shards.
void ModelShare::give(size_t f, int64_t leaf, float* gradient) {
  if (gradient) {
    flip(gradient);
    sign({gradient, holdings_.folds()[f].size()});
  }
  if (!repeating_) shards_->give(f, leaf, gradient);
}

// ZeRO 0 and 1: all that this worker adds to the fold's sum is there.
void ModelShare::complete(size_t f) {
  const std::vector<float*> made = partials(f);
  if (!made.empty()) flip(made.front());
  for (const float* p : made) sign({p, holdings_.folds()[f].size()});
  if (sums_ && !repeating_ && !signing_) sums_->give(f, made);
}

// What a batch that may be audited has held back: the sums go where a repetition makes its gradients.
void ModelShare::settle_sums() {
  if (sums_) {
    if (signing_)
      for (const size_t f : holdings_.order()) sums_->give(f, partials(f));
    sums_->settle();
  } else {
    for (size_t f = 0; f < trees_.size(); ++f)
      std::memcpy(fold_gradient(holdings_.folds()[f]), partials(f).at(0),
                  holdings_.folds()[f].size() * sizeof(float));
  }
}

// Other replicas have one virtual rank more: they need this worker's share of the values, it owns a part of their gradients, and what it
// adds to the sums is due when theirs is.
void ModelShare::absent(const parallel::PipelineAction& a) {
  const ChunkSpec& c = chunks_[static_cast<size_t>(a.chunk)]->spec();
  const bool ends =
      a.work == (split_ ? parallel::PipelineWork::kWeights : parallel::PipelineWork::kBackward) &&
      (a.micro_batch + 1) % per_leaf_ == 0;
  idle_ = true;
  closing_ = ends ? a.micro_batch / per_leaf_ : -1;
  if (a.work == parallel::PipelineWork::kForward)
    for (int64_t l = c.first; l < c.last; ++l) enter(l, Pass::kForward);
  else
    for (int64_t l = c.last; l-- > c.first;) {
      if (a.work == parallel::PipelineWork::kBackward) enter(l, Pass::kBackward);
      leave(l, Pass::kBackward);
    }
  if (ends) end_leaf(a.chunk, closing_);
  idle_ = false;
}

// The layer that this worker needs after this one; -1 where that is not known.
int64_t ModelShare::next_part(int64_t part, Pass pass) const {
  const ChunkSpec& c = chunks_[static_cast<size_t>(chunk_of(part))]->spec();
  const int64_t next = pass == Pass::kForward ? part + 1 : part - 1;
  if (next >= c.first && next < c.last) return next;
  const parallel::PipelineAction* a = run_->upcoming();
  if (!a) return -1;
  const ChunkSpec& then = chunks_[static_cast<size_t>(a->chunk)]->spec();
  return a->work == parallel::PipelineWork::kForward ? then.first : then.last - 1;
}

int ModelShare::chunk_of(int64_t layer) const {
  size_t c = 0;
  while (layer < chunks_.at(c)->spec().first || layer >= chunks_[c]->spec().last) ++c;
  return static_cast<int>(c);
}

void ModelShare::enter(int64_t part, Pass pass) {
  if (run_) run_->poll();
  if (replicas_ && replicas_->size() > 1) replicas_->poll();
  if (part < 0 || part >= recipe_.model.layers) return;
  if (gather_) gather_->bring(part, next_part(part, pass), *masters_);
  if (!eager_ || pass != Pass::kBackward || idle_) return;
  for (const parallel::HeldFold& fold : holdings_.folds())
    if (fold.layer == part) {
      shards_->settle(fold_gradient(fold));  // who had this half of the ring before
      std::memset(fold_gradient(fold), 0, fold.size() * sizeof(float));
    }
}

// This micro-batch has added all it adds to the layer.
void ModelShare::leave(int64_t part, Pass pass) {
  if (part < 0 || part >= recipe_.model.layers || pass != Pass::kBackward || closing_ < 0) return;
  if (!idle_) sum_partial_gradients(chunks_[static_cast<size_t>(chunk_of(part))]->spec(), part);
  for (size_t f = 0; f < holdings_.folds().size(); ++f)
    if (const parallel::HeldFold& fold = holdings_.folds()[f]; fold.layer == part)
      finish(f, closing_, idle_ ? nullptr : fold_gradient(fold));
}

std::vector<float*> ModelShare::partials(size_t fold) {
  if (!trees_.empty()) return trees_[fold]->partials();
  if (leaves_.empty()) return {};
  return {fold_gradient(holdings_.folds()[fold])};
}

void ModelShare::reset() {
  for (auto& tree : trees_) tree->reset();
  if (shards_) shards_->reset();
}

void ModelShare::values_changed() {
  if (gather_) gather_->forget();
}

int ModelShare::slot(int chunk, int64_t micro_batch) const {
  return static_cast<int>(micro_batch % slots_[static_cast<size_t>(chunk)]);
}

const data::Batch& ModelShare::batch(int64_t micro_batch) {
  while (micro_batch >= first_batch_ + static_cast<int64_t>(batches_.size())) {
    data::Batch fresh;
    if (!spare_batches_.empty()) fresh = std::move(spare_batches_.back()), spare_batches_.pop_back();
    if (layout_.context > 1) {
      (*next_)(whole_batch_);
      own_tokens(whole_batch_, fresh);
    } else {
      (*next_)(fresh);
    }
    batches_.push_back(std::move(fresh));
  }
  return batches_.at(static_cast<size_t>(micro_batch - first_batch_));
}

const data::Batch& ModelShare::own_tokens(const data::Batch& whole, data::Batch& out) const {
  if (layout_.context == 1) return whole;
  out.rows = whole.rows;
  out.length = whole.length / layout_.context;
  const auto take = [&](const std::vector<int32_t>& from, std::vector<int32_t>& to) {
    parallel::take_ring_share(from, whole.length, layout_.context, context_rank_, to);
  };
  take(whole.tokens, out.tokens);
  take(whole.targets, out.targets);
  take(whole.positions, out.positions);
  take(whole.document_start, out.document_start);
  return out;
}

void ModelShare::forward(int chunk, int64_t m) {
  chunks_[static_cast<size_t>(chunk)]->forward(view(batch(m)), slot(chunk, m));
}

void ModelShare::backward(int chunk, int64_t m) {
  TransformerChunk& c = *chunks_[static_cast<size_t>(chunk)];
  const int64_t leaf = m / per_leaf_;
  const MicroBatch b = view(batch(m));
  if (m % per_leaf_ == 0) begin_leaf(chunk);
  const bool ends = !split_ && (m + 1) % per_leaf_ == 0;
  closing_ = ends ? leaf : -1;
  const double loss = c.backward(b, slot(chunk, m), grad_scale_);
  if (c.spec().heads) {
    if (tensor_.rank == 0) losses_[static_cast<size_t>(leaf_number(leaf))] += loss;
    if (recipe_.model.tied_embeddings && !c.spec().embeds)
      awaited_.try_emplace(leaf, model_.vocab, model_.hidden).first->second.observe(c.looked_up(b.tokens));
  }
  if (ends) end_leaf(chunk, leaf);
  if (chunk != 0) return;  // the last of this worker's chunks to use the batch
  spare_batches_.push_back(std::move(batches_.front()));
  batches_.pop_front();
  ++first_batch_;
}

void ModelShare::weights(int chunk, int64_t m) {
  const bool ends = (m + 1) % per_leaf_ == 0;
  closing_ = ends ? m / per_leaf_ : -1;
  chunks_[static_cast<size_t>(chunk)]->backward_weights(slot(chunk, m));
  if (ends) end_leaf(chunk, closing_);
}

void ModelShare::begin_leaf(int chunk) {
  if (shards_)  // of the virtual rank before: its gradients' memory is used again
    for (const parallel::HeldFold& fold : holdings_.folds())
      if (fold.chunk == chunk && !(eager_ && fold.layer >= 0)) shards_->settle(fold_gradient(fold));
  const auto [begin, end] = store_.chunk_range(static_cast<size_t>(chunk));
  store_.zero_grads(begin, end);
  TransformerChunk& c = *chunks_[static_cast<size_t>(chunk)];
  if (c.collects_lookups()) c.lookups().clear();
}

// The chunk has added all it adds to a virtual rank's gradient; layers have left on the way, lookups that another worker makes will come.
void ModelShare::end_leaf(int chunk, int64_t leaf) {
  TransformerChunk& c = *chunks_[static_cast<size_t>(chunk)];
  if (!idle_) {
    if (c.collects_lookups() && c.spec().heads)
      c.lookups().flush(store_.find(embedding_name(recipe_.model)).grad);
    sum_partial_gradients(c.spec(), -1);
  }
  for (size_t f = 0; f < holdings_.folds().size(); ++f) {
    const parallel::HeldFold& fold = holdings_.folds()[f];
    if (fold.chunk != chunk || fold.layer >= 0) continue;
    float* gradient = idle_ ? nullptr : fold_gradient(fold);
    if (!fold.awaits_lookups) finish(f, leaf, gradient);
    else if (gradient && leaves_.size() > 1) awaiting_folds_[leaf].assign(gradient, gradient + fold.size());
  }
}

// Of weights that every tensor worker holds and each has seen only a part of the rows or heads of: those of a layer, or (-1) those of
// the chunk that are in none.
void ModelShare::sum_partial_gradients(const ChunkSpec& chunk, int64_t layer) {
  if (!tensor_peers_) return;
  std::vector<std::pair<float*, size_t>> parts;
  std::vector<float> packed;
  for (const nn::Parameter& p : store_.parameters()) {
    if (!p.trained || p.row.layer != layer || !trains(model_, chunk, p.row) ||
        !nn::partial_gradient(p.row, layout_.sequence_parallel))
      continue;
    float* gradient = p.weight.grad.as<float>();
    parts.emplace_back(gradient, static_cast<size_t>(p.row.count()));
    packed.insert(packed.end(), gradient, gradient + p.row.count());
  }
  if (packed.empty()) return;
  tensor_peers_->sum(packed);
  size_t at = 0;
  for (const auto& [gradient, count] : parts) {
    std::copy_n(packed.data() + at, count, gradient);
    at += count;
  }
}

std::span<std::byte> ModelShare::input(int chunk, int64_t m) {
  return bytes_of(chunks_[static_cast<size_t>(chunk)]->input(slot(chunk, m)));
}
std::span<const std::byte> ModelShare::output(int chunk) {
  return bytes_of(chunks_[static_cast<size_t>(chunk)]->output());
}
std::span<std::byte> ModelShare::gradient(int chunk) {
  return bytes_of(chunks_[static_cast<size_t>(chunk)]->gradient());
}

std::span<const std::byte> ModelShare::lookups(int64_t) {
  return std::as_bytes(chunks_[0]->lookups().rows());
}
size_t ModelShare::lookup_bytes(int64_t leaf) { return awaited_.at(leaf).rows().size_bytes(); }

void ModelShare::take_lookups(int64_t leaf, std::span<const std::byte> rows) {
  const auto& folds = holdings_.folds();
  const auto f = static_cast<size_t>(
      std::find_if(folds.begin(), folds.end(), [](const auto& fold) { return fold.awaits_lookups; }) -
      folds.begin());
  if (leaf >= static_cast<int64_t>(leaves_.size())) return finish(f, leaf, nullptr);
  nn::LookupGradient& lookups = awaited_.at(leaf);
  std::memcpy(lookups.rows().data(), rows.data(), rows.size());
  float* gradient = fold_gradient(folds[f]);
  if (leaves_.size() > 1) {
    if (shards_) shards_->settle(leaving_fold_.data());
    leaving_fold_ = std::move(awaiting_folds_.at(leaf));
    gradient = leaving_fold_.data();
  }
  lookups.flush(view_of(gradient, {model_.vocab, model_.hidden}));
  finish(f, leaf, gradient);
  awaited_.erase(leaf);
  awaiting_folds_.erase(leaf);
}

double ModelShare::loss(const MicroBatch& all) {
  MicroBatch b = all;
  if (ring_) {
    const auto copy = [](std::span<const int32_t> s) { return std::vector<int32_t>(s.begin(), s.end()); };
    whole_batch_ = {all.rows,          all.length,          copy(all.tokens),
                    copy(all.targets), copy(all.positions), copy(all.document_start)};
    b = view(own_tokens(whole_batch_, scored_));
  }
  const auto p = static_cast<int>(layout_.pipeline);
  double result = 0;
  for (int g = 0; g < p * static_cast<int>(layout_.virtual_stages); ++g) {
    if (g % p != stage_) continue;
    TransformerChunk& c = *chunks_[static_cast<size_t>(g / p)];
    if (g > 0) line_->receive(bytes_of(c.input(0)), (g - 1) % p);
    c.forward(b, 0);
    if (c.spec().heads) {
      result = c.loss(b, 0);
      if (ring_) ring_->all_reduce(std::span(&result, 1), comm::Reduce::kSum);
    }
    if (!c.spec().heads) line_->send(bytes_of(c.output()), (g + 1) % p);
  }
  if (p > 1) line_->broadcast(std::as_writable_bytes(std::span(&result, 1)), p - 1);
  return result;
}

void ModelShare::share_read_only() {
  if (layout_.pipeline == 1 || !recipe_.model.tied_embeddings) return;
  const auto last = static_cast<int>(layout_.pipeline) - 1;
  if (stage_ != 0 && stage_ != last) return;
  const nn::Weight w = store_.find(embedding_name(recipe_.model));
  if (stage_ == last) {
    line_->send(bytes_of(w.value), 0);
  } else {
    line_->receive(bytes_of(w.value), last);
    store_.refresh_read_only(context_);
  }
}

size_t ModelShare::activation_bytes(const Recipe& r, const LayoutSpec& layout, int64_t stage,
                                    int64_t leaves) {
  const int64_t per_leaf = micro_batches_per_leaf(r);
  const parallel::PipelinePlan plan = parallel::pipeline_plan(layout, stage, leaves * per_leaf, per_leaf);
  const auto chunks = parallel::chunks_of(layout, r.model, stage);
  const ModelSpec share = tensor_share(r.model, {layout.tensor, layout.tensor - 1});  // none has more tokens
  size_t bytes = 0;
  for (size_t c = 0; c < chunks.size(); ++c)
    bytes += TransformerChunk::memory_bytes(share, r.precision, chunks[c],
                                            chunk_options(r, layout, plan.slots[c], splits_backward(layout)));
  if (layout.tensor > 1)
    bytes += parallel::CommTensorPeers::memory_bytes(r.micro_batch * r.sequence_length / layout.context,
                                                     r.model.hidden, layout.tensor);
  if (layout.context > 1)
    bytes += parallel::RingAttention::memory_bytes(ring_shape(r, share), layout.context);
  return bytes;
}

size_t ModelShare::scratch_bytes(const Recipe& r, const LayoutSpec& layout, int64_t stage) {
  const ModelSpec share = tensor_share(r.model, {layout.tensor, layout.tensor - 1});
  size_t most = 0;
  for (const ChunkSpec& chunk : parallel::chunks_of(layout, r.model, stage))
    most =
        std::max(most, TransformerChunk::scratch_bytes(share, r.precision, chunk,
                                                       chunk_options(r, layout, 1, splits_backward(layout))));
  return most;
}

}  // namespace stoker::train
