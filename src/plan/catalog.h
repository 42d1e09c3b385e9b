// plan/catalog.h
// Accelerators, models and software engines by name, from catalog/*.csv.
// Names       compared without case; spaces, '-' and '_' alike. Aliases count. An unknown name is a Usage
//             error that offers the nearest ones.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/footprint.h"
#include "spec/hardware_spec.h"
#include "spec/model_spec.h"

namespace stoker::plan {

struct CatalogAccelerator {
  AcceleratorSpec spec;
  int64_t per_node = 8;
  BytesPerSecond inside, between;  // per accelerator and direction
  int64_t inside_domain = 8;       // accelerators that the fast level joins; 0: all
};

struct CatalogModel {
  std::string name;
  ModelSpec spec;
  // Attention arithmetic over that of heads x head_dim: latent attention, windows, hybrid models.
  double score_scale = 1;
  // State-space layers: elements per token that their convolution, scan and gate read and write, over all
  // such layers, divided by the layers of `spec`.
  double scan_elements = 0;
  std::optional<Precision> precision;  // that its makers trained it in, where it was not 16 bits
};

// What an engine does unless told otherwise: not fitted, from its documentation.
struct EngineHabits {
  std::string engine;
  std::string lineage;  // the code base that it shares with others: "megatron", "torch", "xla"
  bool flash_attention = true;
  Recompute recompute = Recompute::kNone;
  int64_t zero_stage = 1;
  bool dropout = false;
  bool fp32_parameters = false;  // FSDP: sharded fp32 weights, gathered as bf16
  bool selective_ops = false;    // what "selective" recomputation means (ActivationStyle)
  double gradient_bytes = 4;
  bool logits_split = true;
  bool loads_whole = false;  // each worker holds all weights while it cuts its shard out of them
  int64_t sequence_length = 0, vocab = 0, chunks = 0;  // 0: no habit
  ActivationStyle style() const;
};

const CatalogAccelerator& find_accelerator(std::string_view name);
const CatalogAccelerator* lookup_accelerator(std::string_view name);  // null when unknown
const CatalogModel& find_model(std::string_view name);
const CatalogModel* lookup_model(std::string_view name);
std::vector<std::string> accelerator_names();
std::vector<std::string> model_names();

// "h100:1024" or "h100" (one).
HardwareSpec parse_hardware(std::string_view text);
HardwareSpec make_hardware(const CatalogAccelerator& accelerator, int64_t count, int64_t per_node = 0,
                           BytesPerSecond between = BytesPerSecond(0));

// An average engine when the name is unknown; "other megatron": an average one of that lineage.
const EngineHabits& habits_of(std::string_view engine);
inline const std::string kOtherSoftware = "other ";
std::vector<std::string> engine_names();
// Usage error with the nearest names where the catalog knows no such engine.
void require_engine(std::string_view engine);
struct SoftwareMatch {
  EngineHabits habits;
  std::string release;  // "megatron-bridge 26.02"; empty when the text does not tell
  bool recognised =
      false;  // habits without an engine's name: of a paper whose few runs no number is fitted to
};
// The engine and generation that a source text names; an average engine when none is recognised.
SoftwareMatch identify_software(std::string_view source_text);

std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& known,
                                       size_t most = 3);

}  // namespace stoker::plan
