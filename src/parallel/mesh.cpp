#include "parallel/mesh.h"

namespace stoker::parallel {

LayoutSpec fitted(LayoutSpec layout, int64_t workers) {
  layout.data = 1;
  layout.data = workers / layout.world_size();
  if (replicas(layout) <= 1) layout.zero_stage = 0;  // nobody to share with
  return layout;
}

void Mesh::set_timeout(double timeout_s) {
  for (comm::Communicator* group : {replicas.get(), line.get(), tensor.get(), context.get()})
    if (group) group->set_timeout(timeout_s);
}

std::vector<comm::LeafSpan> leaf_spans(const LayoutSpec& layout, int virtual_ranks) {
  std::vector<comm::LeafSpan> out;
  for (int c = 0; c < static_cast<int>(layout.context); ++c)
    for (const comm::LeafSpan& s : comm::even_spans(static_cast<int>(layout.data), virtual_ranks))
      out.push_back({c * virtual_ranks + s.begin, c * virtual_ranks + s.end});
  return out;
}

int64_t Mesh::mirror_of(int64_t rank) const {
  MeshCoordinates next = mesh_coordinates(layout, rank);
  next.data = (next.data + 1) % layout.data;
  if (next.data == 0) next.context = (next.context + 1) % layout.context;
  return mesh_rank(layout, next);
}

Mesh make_mesh(const LayoutSpec& layout, comm::Communicator& world) {
  Mesh mesh;
  mesh.layout = fitted(layout, world.size());
  if (mesh.layout.data < 1)
    fail(ErrorKind::kUsage,
         "layout.pipeline ({}) x layout.tensor ({}) x layout.context ({}) needs {} workers: found {}",
         layout.pipeline, layout.tensor, layout.context, layout.pipeline * layout.tensor * layout.context,
         world.size());
  mesh.spare = world.rank() >= mesh.layout.world_size();
  if (mesh.spare) return mesh;
  mesh.at = mesh_coordinates(mesh.layout, world.rank());
  const auto group = [&](MeshAxis axis) {
    const auto ranks = mesh_group(mesh.layout, world.rank(), axis);
    return world.subgroup({ranks.begin(), ranks.end()});
  };
  std::vector<int> same(static_cast<size_t>(mesh.shards()));
  MeshCoordinates other = mesh.at;
  for (other.context = 0; other.context < mesh.layout.context; ++other.context)
    for (other.data = 0; other.data < mesh.layout.data; ++other.data)
      same[static_cast<size_t>(replica_of(mesh.layout, other))] =
          static_cast<int>(mesh_rank(mesh.layout, other));
  mesh.replicas = world.subgroup(same);
  if (mesh.layout.pipeline > 1) mesh.line = group(MeshAxis::kPipeline);
  if (mesh.layout.tensor > 1) mesh.tensor = group(MeshAxis::kTensor);
  if (mesh.layout.context > 1) mesh.context = group(MeshAxis::kContext);
  return mesh;
}

}  // namespace stoker::parallel
