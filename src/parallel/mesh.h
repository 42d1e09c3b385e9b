// parallel/mesh.h
// A worker's place in the mesh of a layout, and the groups it computes with there. The data axis takes as many workers as are
// there; workers that do not fill another whole replica wait as spares.
// Lifetime     of the communicator of all workers it was made from
#pragma once
#include <memory>

#include "comm/communicator.h"
#include "parallel/holdings.h"
#include "spec/layout_spec.h"

namespace stoker::parallel {

// `layout` with its data axis as long as `workers` allow; data 0 when they do not fill one replica. ZeRO needs two replicas.
LayoutSpec fitted(LayoutSpec layout, int64_t workers);

// Leaves of the tree by replica (parallel/holdings.h): with several workers to a row each of them has a set of leaves for all virtual
// ranks, one set after the other.
std::vector<comm::LeafSpan> leaf_spans(const LayoutSpec& layout, int virtual_ranks);

struct Mesh {
  LayoutSpec layout;  // fitted
  MeshCoordinates at;
  bool spare = false;  // at is meaningless, the groups are empty
  // Of the same share of the same stage, by replica_of (parallel/holdings.h); of one pipeline; of one layer's width; of one row's
  // tokens. But for the first null where the axis is 1.
  std::unique_ptr<comm::Communicator> replicas, line, tensor, context;
  int shards() const { return static_cast<int>(parallel::replicas(layout)); }
  int shard() const { return static_cast<int>(replica_of(layout, at)); }
  int64_t mirror_of(int64_t rank) const;  // the rank that mirrors this one's shard (parallel/holdings.h)
  void set_timeout(double timeout_s);
};

// Usage: fewer workers than one replica needs, with the fields that ask for them.
Mesh make_mesh(const LayoutSpec& layout, comm::Communicator& world);

}  // namespace stoker::parallel
