// parallel/mesh.h
// A worker's place in the mesh of a layout, and the groups it computes with there. The data axis takes as many workers as are
// there; workers that do not fill another whole replica wait as spares.
// Lifetime     of the communicator of all workers it was made from
#pragma once
#include <memory>

#include "comm/communicator.h"
#include "spec/layout_spec.h"

namespace stoker::parallel {

// `layout` with its data axis as long as `workers` allow; data 0 when they do not fill one replica. ZeRO needs two replicas.
LayoutSpec fitted(LayoutSpec layout, int64_t workers);

struct Mesh {
  LayoutSpec layout;  // fitted
  MeshCoordinates at;
  bool spare = false;  // at is meaningless, the groups are empty
  std::unique_ptr<comm::Communicator> data, line,
      tensor;  // of the same share; of one pipeline; null where the axis is 1
  int shards() const { return static_cast<int>(layout.data); }
  void set_timeout(double timeout_s);
};

// Usage: fewer workers than one replica needs, with the fields that ask for them.
Mesh make_mesh(const LayoutSpec& layout, comm::Communicator& world);

}  // namespace stoker::parallel
