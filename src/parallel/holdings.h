// parallel/holdings.h
// Which parameters each worker of a layout holds, and how their gradients are cut between the workers of its data axis.
//   Chunk      a pipeline worker trains the rows of its chunks (spec/parameter_sections.h), laid out as its ParameterStore lays them
//   Fold       a stretch of that array whose gradient is summed in one go: a section, so that layers leave as the backward makes them
//   Block      at most kShardUnit elements inside one section: what sums over parameters are made of, for every layout, and what
//              shards are dealt in
//   Shard      worker r of the data axis owns a share of each fold's blocks and, from stage 1 on, mirrors the shard of worker r-1
//              (cyclic): it makes the same update of it, so when one worker dies its shard is in its neighbour's memory, at the same
//              step, without any copying
//   Share      a tensor worker holds its share of the rows (spec/tensor_share.h). The shares stand one after the other in one flat
//              array, each cut into sections and blocks of its own
// Pure: every worker computes what every other holds. Offsets named flat are in the whole model's array, local in the worker's.
#pragma once
#include <cstddef>
#include <vector>

#include "parallel/shard_plan.h"
#include "spec/layout_spec.h"
#include "spec/parameter_sections.h"

namespace stoker::parallel {

struct HeldBlock {
  size_t flat = 0, local = 0, size = 0;
  size_t number = 0;  // among all blocks of the model: where its sum of squares goes
};

struct HeldFold {
  size_t begin = 0, end = 0;    // local
  int chunk = 0;                // of the worker
  int64_t layer = -1;           // of its section; -1: outside the layers
  bool awaits_lookups = false;  // a tied embedding whose lookups come from another worker
  std::vector<HeldBlock> blocks;
  size_t size() const { return end - begin; }
};

std::vector<ChunkSpec> chunks_of(const LayoutSpec& layout, const ModelSpec& model, int64_t stage);
// Sums of squares in the whole model, all shares of it.
size_t count_blocks(const ModelSpec& model, int64_t tensor = 1);

class Holdings {
 public:
  Holdings(const ModelSpec& model, const LayoutSpec& layout, int64_t stage, int64_t tensor_rank = 0);
  const std::vector<HeldFold>& folds() const { return folds_; }
  // In the order in which a virtual rank's backward completes them: the last chunk first, in a chunk the layers from the last to the
  // first, then the rest; last of all what awaits lookups.
  const std::vector<size_t>& order() const { return order_; }
  // workers + 1 rising offsets within the fold.
  std::vector<size_t> cuts(const HeldFold& fold, int64_t workers) const;
  std::vector<HeldBlock> owned_blocks(const HeldFold& fold, int64_t workers, int64_t worker) const;
  // The parts of a block, local, that no other tensor worker counts: all of it but copies of what the first one has.
  std::vector<Range> counted(const HeldBlock& block) const;
  // Flat, rising, merged, not empty: what the worker owns, and what it updates (owned and mirrored; everything in stage 0).
  std::vector<Range> owned(int64_t workers, int64_t worker) const;
  std::vector<Range> updated(int64_t workers, int64_t worker) const;

 private:
  std::vector<size_t> cut_numbers(const HeldFold& fold, int64_t workers) const;
  int64_t zero_stage_;
  std::vector<HeldFold> folds_;
  std::vector<size_t> order_;
  std::vector<Range> copies_;  // local, rising: rows that the first tensor worker counts
};

// Workers that hold the same share of the same stage, and which of them one is: virtual ranks and shards are dealt to them in this
// order, the parts of a row one after the other.
inline int64_t replicas(const LayoutSpec& layout) { return layout.data * layout.context; }
inline int64_t replica_of(const LayoutSpec& layout, const MeshCoordinates& at) {
  return at.context * layout.data + at.data;
}
// updated() of a worker of the mesh; nothing for a rank beyond it.
std::vector<Range> held_ranges(const ModelSpec& model, const LayoutSpec& layout, int64_t rank);

}  // namespace stoker::parallel
