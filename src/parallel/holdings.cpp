#include "parallel/holdings.h"

#include <algorithm>
#include <tuple>

#include "base/error.h"
#include "spec/tensor_share.h"

namespace stoker::parallel {
namespace {

std::vector<Range> merged(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> out;
  for (const Range& r : ranges) {
    if (r.size() == 0) continue;
    if (!out.empty() && out.back().end >= r.begin) out.back().end = std::max(out.back().end, r.end);
    else out.push_back(r);
  }
  return out;
}

size_t blocks_in(const ParameterSection& s) { return (s.size() + kShardUnit - 1) / kShardUnit; }

}  // namespace

std::vector<ChunkSpec> chunks_of(const LayoutSpec& l, const ModelSpec& model, int64_t stage) {
  std::vector<ChunkSpec> out;
  for (int64_t c = 0; c < l.virtual_stages; ++c) {
    const auto [first, last] = pipeline_layers(l, model.layers, stage, c);
    out.push_back({first, last, first == 0, last == model.layers});
  }
  return out;
}

size_t count_blocks(const ModelSpec& model, int64_t tensor) {
  size_t n = 0;
  for (int64_t t = 0; t < tensor; ++t)
    for (const ParameterSection& s : parameter_sections(parameter_table(tensor_share(model, {tensor, t}))))
      n += blocks_in(s);
  return n;
}

Holdings::Holdings(const ModelSpec& whole, const LayoutSpec& layout, int64_t stage, int64_t tensor_rank)
    : zero_stage_(layout.zero_stage) {
  const TensorPlace place{layout.tensor, tensor_rank};
  const ModelSpec model = tensor_share(whole, place);
  const std::vector<ParameterRow> table = parameter_table(model), whole_table = parameter_table(whole);
  const std::vector<ParameterSection> sections = parameter_sections(table);
  const std::vector<ChunkSpec> chunks = chunks_of(layout, model, stage);
  const size_t flat = share_offset(whole, place);
  size_t before = 0;  // blocks of the shares before
  for (int64_t t = 0; t < tensor_rank; ++t)
    for (const ParameterSection& s :
         parameter_sections(parameter_table(tensor_share(whole, {layout.tensor, t}))))
      before += blocks_in(s);
  size_t local = 0;
  for (size_t c = 0; c < chunks.size(); ++c) {
    size_t number = before;
    for (const ParameterSection& s : sections) {
      const size_t first_number = number;
      number += blocks_in(s);
      if (!trains(model, chunks[c], table[s.first_row])) continue;
      const bool lookups =
          table[s.first_row].role == ParameterRole::kEmbedding && model.tied_embeddings && !chunks[c].embeds;
      folds_.push_back({local, local, static_cast<int>(c), s.layer, lookups, {}});
      for (size_t at = 0; at < s.size(); at += kShardUnit)
        folds_.back().blocks.push_back({flat + s.begin + at, local + at, std::min(kShardUnit, s.size() - at),
                                        first_number + at / kShardUnit});
      size_t at = local;
      for (size_t row = s.first_row; row < s.end_row; ++row) {
        const auto size = static_cast<size_t>(table[row].count());
        if (tensor_rank > 0 && share_cut(whole, place, whole_table[row]).replicated)
          copies_.push_back({at, at + size});
        at += size;
      }
      local += s.size();
      folds_.back().end = local;
    }
  }
  for (size_t f = 0; f < folds_.size(); ++f) order_.push_back(f);
  const auto when = [this](size_t f) {
    const HeldFold& fold = folds_[f];
    return std::tuple(fold.awaits_lookups, -fold.chunk, fold.layer < 0, -fold.layer);
  };
  std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return when(a) < when(b); });
}

std::vector<Range> Holdings::counted(const HeldBlock& block) const {
  std::vector<Range> out;
  size_t at = block.local;
  const size_t end = block.local + block.size;
  for (const Range& copy : copies_) {
    if (copy.end <= at || copy.begin >= end) continue;
    if (copy.begin > at) out.push_back({at, copy.begin});
    at = std::min(end, copy.end);
  }
  if (at < end) out.push_back({at, end});
  return out;
}

// Blocks are dealt evenly; the surplus goes round from fold to fold, so that small folds do not all burden the first worker. Nobody
// between two owners goes empty: what lies before a shard is its neighbour's, and mirrored.
std::vector<size_t> Holdings::cut_numbers(const HeldFold& fold, int64_t workers) const {
  STOKER_CHECK(workers >= 1);
  const auto n = static_cast<size_t>(workers), blocks = fold.blocks.size();
  const auto index = static_cast<size_t>(&fold - folds_.data());
  const size_t turn = index % n;
  const size_t first = blocks < n ? turn % (n - blocks + 1) : turn;
  std::vector<size_t> cuts{0};
  for (size_t w = 0; w < n; ++w)
    cuts.push_back(cuts.back() + blocks / n + ((w + n - first) % n < blocks % n ? 1 : 0));
  return cuts;
}

std::vector<size_t> Holdings::cuts(const HeldFold& fold, int64_t workers) const {
  std::vector<size_t> out;
  for (const size_t c : cut_numbers(fold, workers))
    out.push_back(c == fold.blocks.size() ? fold.size() : fold.blocks[c].local - fold.begin);
  return out;
}

std::vector<HeldBlock> Holdings::owned_blocks(const HeldFold& fold, int64_t workers, int64_t worker) const {
  const auto cuts = cut_numbers(fold, workers);
  const auto w = static_cast<size_t>(worker);
  return {fold.blocks.begin() + static_cast<int64_t>(cuts.at(w)),
          fold.blocks.begin() + static_cast<int64_t>(cuts.at(w + 1))};
}

std::vector<Range> Holdings::owned(int64_t workers, int64_t worker) const {
  std::vector<Range> out;
  for (const HeldFold& f : folds_)
    for (const HeldBlock& b : owned_blocks(f, workers, worker)) out.push_back({b.flat, b.flat + b.size});
  return merged(std::move(out));
}

std::vector<Range> Holdings::updated(int64_t workers, int64_t worker) const {
  if (zero_stage_ == 0) {
    std::vector<Range> out;
    for (const HeldFold& f : folds_)
      for (const HeldBlock& b : f.blocks) out.push_back({b.flat, b.flat + b.size});
    return merged(std::move(out));
  }
  std::vector<Range> out = owned(workers, worker);
  for (const Range& r : owned(workers, (worker + workers - 1) % workers)) out.push_back(r);
  return merged(std::move(out));
}

std::vector<Range> held_ranges(const ModelSpec& model, const LayoutSpec& layout, int64_t rank) {
  if (rank < 0 || rank >= layout.world_size()) return {};
  const MeshCoordinates at = mesh_coordinates(layout, rank);
  return Holdings(model, layout, at.pipeline, at.tensor).updated(replicas(layout), replica_of(layout, at));
}

}  // namespace stoker::parallel
