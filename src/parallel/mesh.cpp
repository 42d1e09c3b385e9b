#include "parallel/mesh.h"

namespace stoker::parallel {

LayoutSpec fitted(LayoutSpec layout, int64_t workers) {
  layout.data = 1;
  layout.data = workers / layout.world_size();
  if (layout.data <= 1) layout.zero_stage = 0;  // nobody to share with
  return layout;
}

void Mesh::set_timeout(double timeout_s) {
  for (comm::Communicator* group : {data.get(), line.get(), tensor.get()})
    if (group) group->set_timeout(timeout_s);
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
  mesh.data = group(MeshAxis::kData);
  if (mesh.layout.pipeline > 1) mesh.line = group(MeshAxis::kPipeline);
  if (mesh.layout.tensor > 1) mesh.tensor = group(MeshAxis::kTensor);
  return mesh;
}

}  // namespace stoker::parallel
