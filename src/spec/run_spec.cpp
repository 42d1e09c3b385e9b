#include "spec/run_spec.h"

#include "base/error.h"
#include "spec/hardware_spec.h"

namespace stoker {

void validate(const RunSpec& run) {
  validate(run.layout, run.model, run.batch);
  if (run.optimizer.master_bytes < 0 || run.optimizer.state_bytes < 0 || run.optimizer.gradient_bytes < 0)
    fail(ErrorKind::kUsage,
         "optimizer bytes per parameter are {} master, {} state, {} gradient: expected 0 or more",
         run.optimizer.master_bytes, run.optimizer.state_bytes, run.optimizer.gradient_bytes);
  if (trains_adapters(run) && run.lora_rank < 1)
    fail(ErrorKind::kUsage, "lora_rank is {}: expected 1 or more", run.lora_rank);
}

double parameter_bytes(Precision precision) { return precision == Precision::kFp32 ? 4 : 2; }

std::string_view to_string(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kFp16:
      return "fp16";
    case Precision::kBf16:
      return "bf16";
    case Precision::kFp8:
      return "fp8";
    case Precision::kFp4:
      return "fp4";
  }
  return "?";
}

std::string_view to_string(Recompute recompute) {
  switch (recompute) {
    case Recompute::kNone:
      return "none";
    case Recompute::kSelective:
      return "selective";
    case Recompute::kFull:
      return "full";
  }
  return "?";
}

std::string_view to_string(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kAdamW:
      return "adamw";
    case OptimizerKind::kMuon:
      return "muon";
    case OptimizerKind::kSgd:
      return "sgd";
    case OptimizerKind::kAdafactor:
      return "adafactor";
  }
  return "?";
}

std::string_view to_string(TrainingKind kind) {
  switch (kind) {
    case TrainingKind::kPretrain:
      return "pretrain";
    case TrainingKind::kFineTune:
      return "finetune";
    case TrainingKind::kLora:
      return "lora";
    case TrainingKind::kQlora:
      return "qlora";
  }
  return "?";
}

std::optional<Precision> parse_precision(std::string_view text) {
  for (Precision p : {Precision::kFp32, Precision::kFp16, Precision::kBf16, Precision::kFp8, Precision::kFp4})
    if (text == to_string(p)) return p;
  return std::nullopt;
}

std::optional<Recompute> parse_recompute(std::string_view text) {
  for (Recompute r : {Recompute::kNone, Recompute::kSelective, Recompute::kFull})
    if (text == to_string(r)) return r;
  return std::nullopt;
}

FlopsPerSecond AcceleratorSpec::peak(Precision precision) const {
  switch (precision) {
    case Precision::kFp32:
      return fp32;
    case Precision::kFp16:
      return fp16;
    case Precision::kBf16:
      return bf16;
    case Precision::kFp8:
      return fp8;
    case Precision::kFp4:
      return fp4;
  }
  return bf16;
}

void validate(const HardwareSpec& h) {
  if (h.accelerators < 1 || h.accelerators_per_node < 1)
    fail(ErrorKind::kUsage, "hardware has {} accelerators, {} per node: expected 1 or more of each",
         h.accelerators, h.accelerators_per_node);
  if (!(h.accelerator.memory > Bytes(0)) || !(h.accelerator.memory_bandwidth > BytesPerSecond(0)))
    fail(ErrorKind::kUsage, "hardware {} has no memory size or bandwidth: give both above 0",
         h.accelerator.name);
  if (h.accelerators > 1 && h.levels.empty())
    fail(ErrorKind::kUsage, "hardware has {} accelerators and no network level between them", h.accelerators);
  int64_t reached = 1;
  for (const NetworkLevel& level : h.levels) {
    if (!(level.bandwidth > BytesPerSecond(0)) || level.latency < Seconds(0))
      fail(ErrorKind::kUsage, "network level {} has bandwidth {} B/s and latency {} s: expected above 0",
           level.name, level.bandwidth.value(), level.latency.value());
    reached = level.accelerators == 0 ? h.accelerators : level.accelerators;
  }
  if (reached < h.accelerators)
    fail(ErrorKind::kUsage, "the outermost network level joins {} accelerators of {}: add a level or set 0",
         reached, h.accelerators);
}

}  // namespace stoker
