// spec/run_spec.h
// The choices of a run that are neither model nor layout: precision, recomputation, optimizer, adapters.
// Shared by the engine, which obeys them, and the planner, which prices them.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "spec/layout_spec.h"
#include "spec/model_spec.h"

namespace stoker {

enum class Precision { kFp32, kFp16, kBf16, kFp8, kFp4 };  // of the matrix products
enum class Recompute {
  kNone,
  kSelective,  // the attention core (scores, softmax) is recomputed, nothing else
  kFull        // only each layer's input is kept
};
enum class OptimizerKind { kAdamW, kMuon, kSgd, kAdafactor };
enum class TrainingKind {
  kPretrain,
  kFineTune,
  kLora,
  kQlora
};  // Lora: base weights frozen; Qlora: in 4 bit

struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::kAdamW;
  double master_bytes = 4;    // per parameter; 0: no separate master copy
  double state_bytes = 8;     // per parameter, all moments together (AdamW 2 x fp32)
  double gradient_bytes = 4;  // per parameter, of the accumulated gradient
  bool operator==(const OptimizerSpec&) const = default;
};

struct RunSpec {
  ModelSpec model;
  LayoutSpec layout;
  BatchSpec batch;
  Precision precision = Precision::kBf16;
  Recompute recompute = Recompute::kNone;
  OptimizerSpec optimizer;
  TrainingKind training = TrainingKind::kPretrain;
  int64_t lora_rank = 16;       // kLora, kQlora
  bool flash_attention = true;  // scores never reach memory
  bool optimizer_offload = false;
  bool operator==(const RunSpec&) const = default;
};

void validate(const RunSpec& run);

// Nothing is trained but the small matrices beside those of the model.
inline bool trains_adapters(const RunSpec& run) {
  return run.training == TrainingKind::kLora || run.training == TrainingKind::kQlora;
}

double parameter_bytes(Precision precision);  // of the working copy: 4, 2, 2, 2 (fp8 and fp4 keep bf16)
std::string_view to_string(Precision precision);
std::string_view to_string(Recompute recompute);
std::string_view to_string(OptimizerKind kind);
std::string_view to_string(TrainingKind kind);
std::optional<Precision> parse_precision(std::string_view text);  // "bf16", "fp8", ...; exact names only
std::optional<Recompute> parse_recompute(std::string_view text);

}  // namespace stoker
