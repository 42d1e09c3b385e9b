// spec/layout_spec.h
// How one model is spread over many workers, and where each worker sits.
// Mesh order   rank = ((pipeline * data + d) * context + c) * tensor + t: tensor neighbours are adjacent
//              (fastest links), then context, then data, then pipeline.
// Experts      are spread over `expert` workers taken from data x context (x tensor when expert_tensor is 1):
//              expert parallelism adds no workers, it re-uses them for the expert layers.
// ZeRO         0 plain data parallel; 1 optimizer state sharded; 2 also gradients; 3 also parameters (FSDP).
//              Sharded over zero_group workers of data x context; 0 means all of them.
// Errors       Usage; the two fields that do not divide are named with their values.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spec/model_spec.h"

namespace stoker {

enum class PipelineSchedule { kOneForwardOneBackward, kInterleaved, kZeroBubble, kAllForwardAllBackward };

struct LayoutSpec {
  int64_t data = 1, tensor = 1, pipeline = 1, context = 1, expert = 1;
  int64_t expert_tensor = 0;  // tensor parallelism inside an expert; 0: as `tensor`
  int64_t zero_stage = 0;
  int64_t zero_group = 0;  // workers over which ZeRO shards; 0: data * context
  bool sequence_parallel = false;
  int64_t virtual_stages = 1;  // model chunks per pipeline worker; above 1 only with kInterleaved
  PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward;
  bool operator==(const LayoutSpec&) const = default;

  int64_t world_size() const { return data * tensor * pipeline * context; }
  int64_t expert_tensor_size() const { return expert_tensor ? expert_tensor : tensor; }
  int64_t zero_shards() const { return zero_group ? zero_group : data * context; }
};

struct BatchSpec {
  int64_t global_batch = 1;  // sequences per optimizer step, over all workers
  int64_t micro_batch = 1;   // sequences per forward pass of one data-parallel worker
  int64_t sequence_length = 1024;
  bool operator==(const BatchSpec&) const = default;
  int64_t tokens() const { return global_batch * sequence_length; }
  int64_t micro_batches(const LayoutSpec& layout) const { return global_batch / (micro_batch * layout.data); }
};

// Everything that must divide does: heads by tensor, layers by pipeline x virtual_stages, global_batch by
// data x micro_batch, sequence_length by context, experts by expert, ...
void validate(const LayoutSpec& layout);
void validate(const LayoutSpec& layout, const ModelSpec& model);
void validate(const LayoutSpec& layout, const ModelSpec& model, const BatchSpec& batch);

struct MeshCoordinates {
  int64_t data = 0, tensor = 0, pipeline = 0, context = 0;
  bool operator==(const MeshCoordinates&) const = default;
};
MeshCoordinates mesh_coordinates(const LayoutSpec& layout, int64_t rank);
int64_t mesh_rank(const LayoutSpec& layout, const MeshCoordinates& at);

enum class MeshAxis { kData, kTensor, kPipeline, kContext };
// The ranks that differ from `rank` only along `axis`, in order of that coordinate (rank included).
std::vector<int64_t> mesh_group(const LayoutSpec& layout, int64_t rank, MeshAxis axis);

// The layers [first, second) of chunk `chunk` on pipeline worker `stage`. Layers are dealt in contiguous
// chunks of layers / (pipeline * virtual_stages), chunk-major: worker s holds chunks s, s + pipeline, ...
std::pair<int64_t, int64_t> pipeline_layers(const LayoutSpec& layout, int64_t layers, int64_t stage,
                                            int64_t chunk);

// What of a layout decides the order of additions inside a layer, and so the last bits of the weights: "tensor 2 rows, context 2";
// empty where neither is shared.
std::string bit_class(const LayoutSpec& layout);
std::string_view to_string(PipelineSchedule schedule);
std::string to_string(const LayoutSpec& layout);  // "dp8 tp4 pp2 cp1 zero1 sp"

}  // namespace stoker
