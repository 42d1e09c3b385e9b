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

int64_t micro_batches_per_leaf(const Recipe& r) { return r.global_batch / r.micro_batch / r.virtual_ranks; }

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
  if (l.pipeline > 1 || l.data == 1) return {};
  return {l.zero_stage >= 2 && micro_batches_per_leaf(r) == 1, l.zero_stage == 3};
}

std::vector<int> ModelShare::leaves_of(int64_t replica) const {
  std::vector<int> out;
  if (in_shards()) {
    for (int64_t r = 0; r < rounds_; ++r)
      if (const int64_t leaf = parallel::dealt_leaf(layout_.data, replica, r); leaf < recipe_.virtual_ranks)
        out.push_back(static_cast<int>(leaf));
    return out;
  }
  const comm::LeafSpan span =
      comm::leaves_of(static_cast<int>(replica), static_cast<int>(layout_.data), recipe_.virtual_ranks);
  for (int leaf = span.begin; leaf < span.end; ++leaf) out.push_back(leaf);
  return out;
}

std::unique_ptr<parallel::PipelineRun> ModelShare::run_of(size_t leaves) const {
  return std::make_unique<parallel::PipelineRun>(layout_, stage_, static_cast<int64_t>(leaves) * per_leaf_,
                                                 per_leaf_, recipe_.model.tied_embeddings, line_);
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
  data_ = mesh.replicas.get();
  context_rank_ = mesh.at.context;
  masters_ = &masters;
  layout_.data = mesh.layout.data;
  rounds_ = parallel::dealt_rounds(layout_.data, recipe_.virtual_ranks);
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
  if (by_layer() && layout_.data > 1)
    sums_ = std::make_unique<parallel::SpanSums>(holdings_, recipe_.virtual_ranks, *data_,
                                                 layout_.zero_stage == 0, store_.grads().as<float>());
  if (!in_shards()) return;
  shards_ = std::make_unique<parallel::GradientShards>(holdings_, recipe_.virtual_ranks, *data_);
  if (layout_.zero_stage == 3)
    gather_ =
        std::make_unique<parallel::LayerGather>(holdings_, store_, recipe_.model.layers, *data_, context_);
}

Hash128 ModelShare::repeat(int64_t replica, const std::function<void(data::Batch&)>& next, float grad_scale) {
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
  round_ = 0;
  if (leaves_.empty() && recipe_.virtual_ranks == 1 && !in_shards()) store_.zero_grads();
  run_->run(*this);
  batches_.clear();
  if (in_shards()) return idle_rounds();
  if (trees_.empty() || leaves_.empty()) {  // nothing was closed
    if (by_layer())
      for (int64_t l = recipe_.model.layers; l-- > 0;)
        for (size_t f = 0; f < holdings_.folds().size(); ++f)
          if (holdings_.folds()[f].layer == l) complete(f);
    for (size_t f = 0; f < holdings_.folds().size(); ++f)
      if (!by_layer() || holdings_.folds()[f].layer < 0) complete(f);
  }
}

// All that this worker adds to the fold's sum is there.
void ModelShare::complete(size_t f) {
  const std::vector<float*> made = partials(f);
  if (flip_ && !repeating_ && !made.empty()) {
    flip_ = false;
    *reinterpret_cast<uint8_t*>(made.front()) ^= 0x04;
  }
  if (signing_ || repeating_)
    for (const float* p : made) {
      const Hash128 hash = hash128(p, holdings_.folds()[f].size() * sizeof(float));
      signature_.update(&hash, sizeof hash);
    }
  if (sums_ && !repeating_ && !signing_) sums_->give(f, made);
}

// What a batch that may be audited has held back: the sums go where a repetition makes its gradients.
bool ModelShare::settle_sums() {
  if (!sums_) return false;
  if (signing_) {
    for (int64_t l = recipe_.model.layers; l-- > 0;)
      for (size_t f = 0; f < holdings_.folds().size(); ++f)
        if (holdings_.folds()[f].layer == l) sums_->give(f, partials(f));
    for (size_t f = 0; f < holdings_.folds().size(); ++f)
      if (holdings_.folds()[f].layer < 0) sums_->give(f, partials(f));
  }
  sums_->settle();
  return true;
}

// A fold of one virtual rank into its tree.
void ModelShare::close(size_t f, int64_t leaf) {
  const parallel::HeldFold& fold = holdings_.folds()[f];
  const int v = leaf_number(leaf);
  std::memcpy(trees_[f]->open(v), fold_gradient(fold), fold.size() * sizeof(float));
  trees_[f]->close(v);
  if (leaf + 1 == static_cast<int64_t>(leaves_.size())) complete(f);
}

// The others have one virtual rank more: they need this worker's share of the values, and it owns a part of their gradients.
void ModelShare::idle_rounds() {
  idle_ = true;
  for (; round_ < rounds_; ++round_) {
    for (int64_t m = 0; gather_ && m < per_leaf_; ++m) {
      for (int64_t l = 0; l < recipe_.model.layers; ++l) enter(l, Pass::kForward);
      for (int64_t l = recipe_.model.layers; l-- > 0;) {
        enter(l, Pass::kBackward);
        leave(l, Pass::kBackward);
      }
    }
    if (!gather_ && eager_)
      for (int64_t l = recipe_.model.layers; l-- > 0;) give(l, false);
    give(-1, true);
  }
  idle_ = false;
}

// Folds of a layer, or (others) of what end_leaf gives: everything that did not leave layer by layer.
void ModelShare::give(int64_t layer, bool others) {
  for (size_t f = 0; f < holdings_.folds().size(); ++f) {
    const parallel::HeldFold& fold = holdings_.folds()[f];
    if (others ? eager_ && fold.layer >= 0 : fold.layer != layer) continue;
    float* gradient = idle_ ? nullptr : fold_gradient(fold);
    if (gradient && flip_ && !repeating_) {
      flip_ = false;
      *reinterpret_cast<uint8_t*>(gradient) ^= 0x04;
    }
    if (gradient && (signing_ || repeating_)) {
      const Hash128 hash = hash128(gradient, fold.size() * sizeof(float));
      signature_.update(&hash, sizeof hash);
    }
    if (!repeating_) shards_->give(f, round_, gradient);
  }
}

void ModelShare::enter(int64_t part, Pass pass) {
  if (run_) run_->poll();
  if (data_ && data_->size() > 1) data_->poll();
  if (part < 0 || part >= recipe_.model.layers) return;
  if (gather_) gather_->bring(part, pass == Pass::kForward ? part + 1 : part - 1, *masters_);
  if (!eager_ || pass != Pass::kBackward) return;
  if (!repeating_) shards_->settle(1);  // who used this half of the ring last is two layers back
  if (idle_) return;
  for (const parallel::HeldFold& fold : holdings_.folds())
    if (fold.layer == part) std::memset(fold_gradient(fold), 0, fold.size() * sizeof(float));
}

void ModelShare::leave(int64_t part, Pass pass) {
  const bool layer = part >= 0 && part < recipe_.model.layers;
  if (!layer || pass != Pass::kBackward) return;
  if (eager_) return give(part, false);
  if (closing_ < 0 || !by_layer()) return;
  for (size_t f = 0; f < holdings_.folds().size(); ++f)
    if (holdings_.folds()[f].layer == part) close(f, closing_);
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
  closing_ = (m + 1) % per_leaf_ == 0 ? leaf : -1;
  const double loss = c.backward(b, slot(chunk, m), grad_scale_);
  if (c.spec().heads) {
    if (tensor_.rank == 0) losses_[static_cast<size_t>(leaf_number(leaf))] += loss;
    if (recipe_.model.tied_embeddings && !c.spec().embeds)
      awaited_.try_emplace(leaf, model_.vocab, model_.hidden).first->second.observe(c.looked_up(b.tokens));
  }
  if (!split_ && (m + 1) % per_leaf_ == 0) end_leaf(chunk, leaf);
  if (chunk != 0) return;  // the last of this worker's chunks to use the batch
  spare_batches_.push_back(std::move(batches_.front()));
  batches_.pop_front();
  ++first_batch_;
}

void ModelShare::weights(int chunk, int64_t m) {
  chunks_[static_cast<size_t>(chunk)]->backward_weights(slot(chunk, m));
  if ((m + 1) % per_leaf_ == 0) end_leaf(chunk, m / per_leaf_);
}

void ModelShare::begin_leaf(int chunk) {
  if (shards_) shards_->settle();  // of the virtual rank before: its gradients' memory is used again
  const auto [begin, end] = store_.chunk_range(static_cast<size_t>(chunk));
  store_.zero_grads(begin, end);
  TransformerChunk& c = *chunks_[static_cast<size_t>(chunk)];
  if (c.collects_lookups()) c.lookups().clear();
}

// The chunk's gradient of this virtual rank is complete, but for lookups that another worker makes.
void ModelShare::end_leaf(int chunk, int64_t leaf) {
  TransformerChunk& c = *chunks_[static_cast<size_t>(chunk)];
  if (c.collects_lookups() && c.spec().heads)
    c.lookups().flush(store_.find(embedding_name(recipe_.model)).grad);
  if (tensor_peers_) sum_partial_gradients(chunk);
  if (in_shards()) {
    round_ = leaf;
    give(-1, true);
    round_ = leaf + 1;
    return;
  }
  if (trees_.empty()) return;
  for (size_t i = 0; i < holdings_.folds().size(); ++i) {
    const parallel::HeldFold& fold = holdings_.folds()[i];
    if (fold.chunk != chunk || (by_layer() && fold.layer >= 0)) continue;  // layers were closed on the way
    const float* gradient = fold_gradient(fold);
    if (fold.awaits_lookups) awaiting_folds_[leaf].assign(gradient, gradient + fold.size());
    else close(i, leaf);
  }
}

// Of weights that every tensor worker holds and each has seen only a part of the rows or heads of.
void ModelShare::sum_partial_gradients(int chunk) {
  const auto [begin, end] = store_.chunk_range(static_cast<size_t>(chunk));
  const float* base = store_.grads().as<float>();
  std::vector<std::pair<float*, size_t>> parts;
  std::vector<float> packed;
  for (const nn::Parameter& p : store_.parameters()) {
    if (!p.trained || !nn::partial_gradient(p.row, layout_.sequence_parallel)) continue;
    float* gradient = p.weight.grad.as<float>();
    const auto at = static_cast<size_t>(gradient - base), count = static_cast<size_t>(p.row.count());
    if (at < begin || at >= end) continue;
    parts.emplace_back(gradient, count);
    packed.insert(packed.end(), gradient, gradient + count);
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
  nn::LookupGradient& lookups = awaited_.at(leaf);
  std::memcpy(lookups.rows().data(), rows.data(), rows.size());
  const Shape table{model_.vocab, model_.hidden};
  for (size_t i = 0; i < holdings_.folds().size(); ++i) {
    const parallel::HeldFold& fold = holdings_.folds()[i];
    if (!fold.awaits_lookups) continue;
    if (trees_.empty()) {
      lookups.flush(view_of(fold_gradient(fold), table));
    } else {
      const int v = leaf_number(leaf);
      float* sum = trees_[i]->open(v);
      std::memcpy(sum, awaiting_folds_.at(leaf).data(), fold.size() * sizeof(float));
      lookups.flush(view_of(sum, table));
      trees_[i]->close(v);
      if (leaf + 1 == static_cast<int64_t>(leaves_.size())) complete(i);
    }
  }
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
  if (layout.context > 1)
    bytes += parallel::RingAttention::memory_bytes(ring_shape(r, share), layout.context);
  return bytes;
}

}  // namespace stoker::train
