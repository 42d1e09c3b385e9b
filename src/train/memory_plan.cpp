#include "train/memory_plan.h"

#include <algorithm>

#include "spec/tensor_share.h"
#include "train/model_share.h"
#include "train/peak.h"

namespace stoker::train {
namespace {

// Resident memory of `stoker train` less what its rows say. 30 MB are pages of the program and its libraries, 3 MB the heap it starts
// with, the rest oneDNN's kernels with their own scratch and the loader. Measured over nine shapes: 40 to 43 MB for models below 100
// million parameters, 49 above; and the part of it that is there before the model is.
constexpr size_t kProgram = 40 << 20, kProgramBefore = 30 << 20;

// The same of a worker of a team, with its coordinator's line (gRPC) and its groups' buffers, on one thread. Measured: 41 to 43 MB.
constexpr size_t kTeamProgram = 43 << 20;

// Buffers that folding a span keeps at its worst, while a leaf is open: the subtrees left of it, and the leaf.
size_t tree_buffers(comm::LeafSpan span, int virtual_ranks) {
  size_t most = 0;
  for (int v = span.begin; v < span.end; ++v)
    most = std::max(most, comm::complete_subtrees({span.begin, v}, virtual_ranks).size() + 1);
  return most;
}

size_t elements(const std::vector<parallel::Range>& ranges) {
  size_t n = 0;
  for (const parallel::Range& r : ranges) n += r.size();
  return n;
}

std::vector<ParameterRow> rows_of(const ModelSpec& model, const std::vector<ChunkSpec>& chunks) {
  std::vector<ParameterRow> out;
  for (const ParameterRow& row : parameter_table(model))
    if (std::any_of(chunks.begin(), chunks.end(), [&](const ChunkSpec& c) { return trains(model, c, row); }))
      out.push_back(row);
  return out;
}

// Two folds' gradients may be on their way to their owners: what others send of this worker's shard of them, so many pieces each.
size_t pieces_on_the_way(const parallel::Holdings& holdings, int64_t workers, int64_t worker, size_t pieces) {
  std::vector<size_t> parts;
  for (const parallel::HeldFold& f : holdings.folds()) {
    const auto cuts = holdings.cuts(f, workers);
    parts.push_back(cuts[static_cast<size_t>(worker) + 1] - cuts[static_cast<size_t>(worker)]);
  }
  std::sort(parts.rbegin(), parts.rend());
  size_t most = 0;
  for (size_t i = 0; i < std::min<size_t>(2, parts.size()); ++i) most += parts[i];
  return most * pieces;
}

// What a save holds of matrices whose columns are cut: the tensor workers exchange them for whole rows, values and optimizer state.
size_t whole_rows_being_saved(const Recipe& r, const ModelSpec& part, const TensorPlace& place,
                              const std::vector<ChunkSpec>& chunks, int64_t replicas) {
  const std::vector<ParameterRow> whole = rows_of(r.model, chunks), shares = rows_of(part, chunks);
  std::vector<ParameterRow> cut;
  size_t values = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    if (!share_cut(r.model, place, whole[i]).cuts_columns()) continue;
    cut.push_back(shares[i]);
    values += static_cast<size_t>(shares[i].count()) * sizeof(float);
  }
  return (values + optim::Optimizer::state_bytes(cut, r.optimizer)) / static_cast<size_t>(replicas);
}

}  // namespace

size_t MemoryPlan::total() const {
  size_t sum = 0;
  for (const MemoryRow& r : rows) sum += r.bytes;
  return sum;
}

MemoryPlan memory_plan(const Recipe& r, int64_t workers, int64_t rank) {
  const LayoutSpec layout = parallel::fitted(r.layout, workers);
  if (layout.data < 1 || rank < 0 || rank >= layout.world_size())
    fail(ErrorKind::kUsage,
         "layout.pipeline ({}) x tensor ({}) x context ({}) with {} workers: worker {} has no place in it",
         r.layout.pipeline, r.layout.tensor, r.layout.context, workers, rank);
  const MeshCoordinates at = mesh_coordinates(layout, rank);
  const auto chunks = parallel::chunks_of(layout, r.model, at.pipeline);
  const ModelSpec part = tensor_share(r.model, {layout.tensor, at.tensor});
  const parallel::Holdings holdings(r.model, layout, at.pipeline, at.tensor);
  const int64_t replicas = parallel::replicas(layout), replica = parallel::replica_of(layout, at);
  const int64_t zero = layout.zero_stage;
  const nn::StoreRings rings = ModelShare::rings(r, layout);
  const auto store = [&](Precision p, bool gradients) {
    return nn::ParameterStore::bytes(part, p, gradients, chunks, rings);
  };
  const size_t values = store(Precision::kFp32, false), shard = elements(holdings.owned(replicas, replica)),
               updated = elements(holdings.updated(replicas, replica));
  size_t share = 0;
  for (const parallel::HeldFold& f : holdings.folds()) share += f.size();
  const int leaves = ModelShare::leaves_of_tree(r, layout);
  const std::vector<comm::LeafSpan> spans = parallel::leaf_spans(layout, r.virtual_ranks);
  const comm::LeafSpan span = spans.at(static_cast<size_t>(replica));
  const parallel::Dealing dealing{layout.data, layout.context, r.virtual_ranks};
  const int64_t turns = dealing.rounds();  // virtual ranks that this worker goes through
  MemoryPlan plan;
  const auto add = [&](const char* what, size_t bytes) {
    if (bytes) plan.rows.push_back({what, bytes});
  };
  add("weights, fp32", values + (zero == 3 ? updated * 4 : 0));
  add("weights, bf16 copy", store(r.precision, false) - values);
  add("gradients, fp32", store(Precision::kFp32, true) - values + (zero >= 2 ? updated * 4 : 0));
  size_t pieces = 0;  // that arrive of this worker's shard of a fold
  if (zero >= 2) {
    add("gradient tree", dealing.open_buffers() * shard * 4);
    pieces = static_cast<size_t>(replicas) - 1;
  } else {
    if (r.virtual_ranks > 1) add("gradient tree", tree_buffers(span, leaves) * share * 4);
    for (size_t w = 0; w < spans.size(); ++w)
      if (w != static_cast<size_t>(replica)) pieces += comm::complete_subtrees(spans[w], leaves).size();
  }
  add("gradients on their way", pieces_on_the_way(holdings, replicas, replica, pieces) * 4);
  for (const parallel::HeldFold& f : holdings.folds())
    if (f.awaits_lookups && turns > 1) {
      const size_t awaited =
          parallel::PipelineRun::awaited_lookups(layout, turns, ModelShare::micro_batches_per_leaf(r));
      add("gradient of the head, awaiting lookups", (awaited + (zero >= 2 ? 1 : 0)) * f.size() * 4);
    }
  if (r.model.tied_embeddings && (chunks.front().embeds || chunks.back().heads)) {
    const int64_t tokens = r.global_batch / r.virtual_ranks * r.sequence_length / layout.context;
    add("gradient of lookups", static_cast<size_t>(std::min(tokens, part.vocab) * r.model.hidden) * 4);
  }
  add("optimizer state", zero == 0 ? optim::Optimizer::state_bytes(rows_of(part, chunks), r.optimizer)
                                   : updated * (r.optimizer.kind == OptimizerKind::kSgd ? 4 : 8));
  add("optimizer's workspace",
      optim::Optimizer::workspace_bytes(rows_of(part, chunks), r.optimizer, r.precision));
  add("activations and logits", ModelShare::activation_bytes(r, layout, at.pipeline, turns));
  add("an operand's copy", ModelShare::scratch_bytes(r, layout, at.pipeline));
  if (layout.pipeline > 1)
    add("messages of the pipeline",
        4 *
            static_cast<size_t>(r.micro_batch * r.sequence_length / layout.context /
                                (layout.sequence_parallel ? layout.tensor : 1) * r.model.hidden) *
            (r.precision == Precision::kBf16 ? 2 : 4));
  if (zero > 0) add("optimizer state being saved", shard * (r.optimizer.kind == OptimizerKind::kSgd ? 4 : 8));
  if (layout.tensor > 1)
    add("columns being saved", whole_rows_being_saved(r, part, {layout.tensor, at.tensor}, chunks, replicas));
  // A process that is alone measures the machine before it allocates the model: small models need less than that.
  const size_t measuring = peak_bytes(r.precision) + kProgramBefore, training = plan.total() + kProgram;
  if (workers == 1 && measuring > training) add("measuring this machine's peak", measuring - training);
  add("program", workers > 1 ? kTeamProgram : kProgram);
  return plan;
}

}  // namespace stoker::train
