#include "spec/layout_spec.h"

#include <fmt/format.h>

#include "base/checked.h"
#include "base/error.h"

namespace stoker {
namespace {

void positive(const char* field, int64_t value) {
  if (value < 1 || value > (int64_t{1} << 24))
    fail(ErrorKind::kUsage, "{} is {}: expected a whole number from 1 to 2^24", field, value);
}

void divides(const char* whole_name, int64_t whole, const char* part_name, int64_t part, const char* why) {
  if (whole % part)
    fail(ErrorKind::kUsage, "{} ({}) is not a multiple of {} ({}): {}", whole_name, whole, part_name, part,
         why);
}

}  // namespace

void validate(const LayoutSpec& l) {
  positive("layout.data", l.data);
  positive("layout.tensor", l.tensor);
  positive("layout.pipeline", l.pipeline);
  positive("layout.context", l.context);
  positive("layout.expert", l.expert);
  positive("layout.virtual_stages", l.virtual_stages);
  const int64_t replicas = checked_mul(l.data, l.context, "layout.data x layout.context");
  checked_mul(checked_mul(replicas, l.tensor, "layout"), l.pipeline, "layout world size");
  if (l.zero_stage < 0 || l.zero_stage > 3)
    fail(ErrorKind::kUsage, "layout.zero_stage is {}: expected 0, 1, 2 or 3", l.zero_stage);
  if (l.zero_group < 0)
    fail(ErrorKind::kUsage, "layout.zero_group is {}: expected 0 (all) or a divisor of data x context",
         l.zero_group);
  if (l.zero_group)
    divides("layout.data x layout.context", replicas, "layout.zero_group", l.zero_group,
            "every shard group must be whole");
  if (l.expert_tensor < 0)
    fail(ErrorKind::kUsage, "layout.expert_tensor is {}: expected 0 (as tensor) or a whole number",
         l.expert_tensor);
  const int64_t per_stage = replicas * l.tensor;
  divides("layout.data x context x tensor", per_stage, "layout.expert x expert_tensor",
          l.expert * (l.expert == 1 ? 1 : l.expert_tensor_size()),
          "expert workers are taken from one stage's");
  if (l.virtual_stages > 1 && l.schedule != PipelineSchedule::kInterleaved)
    fail(ErrorKind::kUsage,
         "layout.virtual_stages is {} but layout.schedule is {}: only interleaved has them", l.virtual_stages,
         to_string(l.schedule));
  if (l.virtual_stages > 1 && l.pipeline == 1)
    fail(ErrorKind::kUsage, "layout.virtual_stages is {} but layout.pipeline is 1: nothing to interleave",
         l.virtual_stages);
  if (l.sequence_parallel && l.tensor == 1)
    fail(ErrorKind::kUsage,
         "layout.sequence_parallel is on but layout.tensor is 1: it splits what tensor parallelism leaves");
}

void validate(const LayoutSpec& l, const ModelSpec& m) {
  validate(l);
  validate(m);
  divides("model.heads", m.heads, "layout.tensor", l.tensor, "each tensor worker takes whole heads");
  if (m.kv_heads % l.tensor && l.tensor % m.kv_heads)
    fail(
        ErrorKind::kUsage,
        "model.kv_heads ({}) and layout.tensor ({}) do not divide one another: key heads are split or copied "
        "whole",
        m.kv_heads, l.tensor);
  divides("model.ffn", m.ffn, "layout.tensor", l.tensor, "the feed-forward width is split by it");
  divides("model.layers", m.layers, "layout.pipeline x layout.virtual_stages", l.pipeline * l.virtual_stages,
          "each chunk takes whole layers, the same number");
  if (l.expert > 1 && !m.experts)
    fail(ErrorKind::kUsage, "layout.expert is {} but model.experts is 0: a dense model has none to spread",
         l.expert);
  if (m.experts)
    divides("model.experts", m.experts, "layout.expert", l.expert, "each worker takes whole experts");
}

void validate(const LayoutSpec& l, const ModelSpec& m, const BatchSpec& b) {
  validate(l, m);
  positive("batch.global_batch", b.global_batch);
  positive("batch.micro_batch", b.micro_batch);
  positive("batch.sequence_length", b.sequence_length);
  divides("batch.global_batch", b.global_batch, "batch.micro_batch x layout.data", b.micro_batch * l.data,
          "every data-parallel worker takes the same whole micro-batches");
  const int64_t cut = l.context * (l.sequence_parallel ? l.tensor : 1);
  divides("batch.sequence_length", b.sequence_length,
          l.sequence_parallel ? "layout.context x layout.tensor (sequence parallel)" : "layout.context", cut,
          "the sequence is cut into equal parts");
  const int64_t micro = b.micro_batches(l);
  if (l.schedule == PipelineSchedule::kInterleaved && l.virtual_stages > 1)
    divides("batch.global_batch / (micro_batch x data)", micro, "layout.pipeline", l.pipeline,
            "an interleaved schedule deals micro-batches in rounds of the pipeline's length");
}

MeshCoordinates mesh_coordinates(const LayoutSpec& l, int64_t rank) {
  if (rank < 0 || rank >= l.world_size())
    fail(ErrorKind::kUsage, "rank {} is outside the layout's {} workers", rank, l.world_size());
  MeshCoordinates at;
  at.tensor = rank % l.tensor;
  rank /= l.tensor;
  at.context = rank % l.context;
  rank /= l.context;
  at.data = rank % l.data;
  at.pipeline = rank / l.data;
  return at;
}

int64_t mesh_rank(const LayoutSpec& l, const MeshCoordinates& at) {
  return ((at.pipeline * l.data + at.data) * l.context + at.context) * l.tensor + at.tensor;
}

std::vector<int64_t> mesh_group(const LayoutSpec& l, int64_t rank, MeshAxis axis) {
  MeshCoordinates at = mesh_coordinates(l, rank);
  int64_t* moving = &at.data;
  int64_t size = l.data;
  switch (axis) {
    case MeshAxis::kData:
      break;
    case MeshAxis::kTensor:
      moving = &at.tensor, size = l.tensor;
      break;
    case MeshAxis::kPipeline:
      moving = &at.pipeline, size = l.pipeline;
      break;
    case MeshAxis::kContext:
      moving = &at.context, size = l.context;
      break;
  }
  std::vector<int64_t> ranks;
  for (*moving = 0; *moving < size; ++*moving) ranks.push_back(mesh_rank(l, at));
  return ranks;
}

std::pair<int64_t, int64_t> pipeline_layers(const LayoutSpec& l, int64_t layers, int64_t stage,
                                            int64_t chunk) {
  STOKER_CHECK(stage >= 0 && stage < l.pipeline && chunk >= 0 && chunk < l.virtual_stages, "{} {}", stage,
               chunk);
  const int64_t chunks = l.pipeline * l.virtual_stages, per = layers / chunks;
  const int64_t at = chunk * l.pipeline + stage;
  return {at * per, (at + 1) * per};
}

std::string bit_class(const LayoutSpec& l) {
  std::string text;
  if (l.tensor > 1) text = fmt::format("tensor {}{}", l.tensor, l.sequence_parallel ? " rows" : "");
  if (l.context > 1) text += fmt::format("{}context {}", text.empty() ? "" : ", ", l.context);
  return text;
}

std::string_view to_string(PipelineSchedule schedule) {
  switch (schedule) {
    case PipelineSchedule::kOneForwardOneBackward:
      return "1f1b";
    case PipelineSchedule::kInterleaved:
      return "interleaved";
    case PipelineSchedule::kZeroBubble:
      return "zero-bubble";
    case PipelineSchedule::kAllForwardAllBackward:
      return "gpipe";
  }
  return "?";
}

std::string to_string(const LayoutSpec& l) {
  std::string text = fmt::format("dp{} tp{} pp{}", l.data, l.tensor, l.pipeline);
  if (l.virtual_stages > 1) text += fmt::format(" vp{}", l.virtual_stages);
  if (l.context > 1) text += fmt::format(" cp{}", l.context);
  if (l.expert > 1) text += fmt::format(" ep{}", l.expert);
  if (l.zero_stage) text += fmt::format(" zero{}", l.zero_stage);
  if (l.zero_stage && l.zero_group) text += fmt::format("x{}", l.zero_group);
  if (l.sequence_parallel) text += " sp";
  if (l.schedule == PipelineSchedule::kZeroBubble || l.schedule == PipelineSchedule::kAllForwardAllBackward)
    text += fmt::format(" {}", to_string(l.schedule));
  return text;
}

}  // namespace stoker
