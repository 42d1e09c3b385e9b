#include "plan/published_run.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <regex>

#include "base/error.h"
#include "plan/assumed_layout.h"
#include "plan/catalog.h"
#include "spec/parameter_table.h"

namespace stoker::plan {
namespace {

std::string lower(std::string_view text) {
  std::string out;
  for (char c : text) out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}
bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

constexpr double kMostOfAnything = 1 << 30;  // products of two such numbers still fit

class RowReader {
 public:
  RowReader(const CsvTable& table, size_t row, PublishedRun& out) : t_(table), r_(row), out_(out) {}

  void read();

 private:
  std::string_view text(const char* column) const { return t_.text(r_, column); }
  std::optional<double> number(const char* column) const {
    const std::optional<double> v = t_.number(r_, column);
    return v && *v > 0 ? v : std::nullopt;
  }
  int64_t whole(const char* column, int64_t otherwise) {
    const auto v = number(column);
    if (!v) return otherwise;
    if (*v > kMostOfAnything)
      fail(ErrorKind::kData, "{}: {} is {}: expected at most 2^30", t_.where(r_), column, *v);
    return std::max<int64_t>(1, std::llround(*v));
  }
  void assume(std::string what) { out_.assumed.push_back(std::move(what)); }
  void guess(std::string what) {
    assume(std::move(what)), ++out_.guesses;
  }  // of layout, batch, length or shape

  const CatalogAccelerator* accelerator_of_row() const;
  bool read_hardware();
  bool read_model();
  void read_precision();
  void read_training();
  void read_layout();
  void read_measured();
  int64_t slice_accelerators();

  const CsvTable& t_;
  size_t r_;
  PublishedRun& out_;
  SoftwareMatch software_;
  const CatalogAccelerator* accelerator_ = nullptr;
  std::string name_, notes_;
};

// The catalog entry whose name or alias is the longest one inside `text`.
template <typename Lookup,
          typename Entry = std::remove_pointer_t<std::invoke_result_t<Lookup, std::string_view>>>
Entry* longest_inside(std::string_view text, Lookup lookup) {
  for (size_t length = text.size(); length >= 2; --length)
    for (size_t at = 0; at + length <= text.size(); ++at) {
      const std::string_view part = text.substr(at, length);
      const auto glued = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
      if (at > 0 && glued(text[at - 1]) && glued(part.front())) continue;
      if (at + length < text.size() && glued(text[at + length]) && glued(part.back())) continue;
      if (Entry* found = lookup(part)) return found;
    }
  return nullptr;
}

const CatalogAccelerator* RowReader::accelerator_of_row() const {
  auto lookup = [](std::string_view n) { return lookup_accelerator(n); };
  const CatalogAccelerator* found = longest_inside(lower(text("gpu")), lookup);
  return found ? found : lookup_accelerator(text("gpu_family"));
}

bool RowReader::read_hardware() {
  const std::string gpu = lower(text("gpu"));
  accelerator_ = accelerator_of_row();
  if (!accelerator_) {
    out_.reason =
        gpu.empty() ? "no accelerator stated" : fmt::format("accelerator '{}' is not in the catalog", gpu);
    return false;
  }
  return true;
}

bool RowReader::read_model() {
  ModelSpec& m = out_.input.run.model;
  auto lookup = [](std::string_view n) { return lookup_model(n); };
  const CatalogModel* known = longest_inside(name_, lookup);
  // "GPT 175B" of another shape than the catalog's: the row's own figures win
  const auto hidden = number("hidden"), layers = number("layers");
  if (known && hidden && std::llround(*hidden) != known->spec.hidden) known = nullptr;
  // "GPT-2 6.7B" is not GPT-2
  if (const auto billions = number("params_B"); known && !hidden && billions) {
    const double ratio = static_cast<double>(parameter_count(known->spec)) / (*billions * 1e9);
    if (ratio < 0.7 || ratio > 1.5) known = nullptr;
  }
  const bool gated = known ? known->spec.activation == ActivationKind::kSwiGlu
                           : contains(name_, "llama") || contains(name_, "mistral") ||
                                 contains(name_, "qwen") || contains(name_, "gemma") ||
                                 contains(name_, "deepseek");
  if (known) {
    m = known->spec;
    out_.input.score_scale = known->score_scale;
    out_.input.scan_elements = known->scan_elements;
    if (!layers || !hidden) assume(fmt::format("shape of {}", known->name));
  } else if (hidden && layers) {
    m.experts = 0;
  } else if (const auto billions = number("params_B")) {
    // usual proportions: hidden about 110 times the layers, 12 hidden^2 parameters a layer
    const double n = *billions * 1e9, count = std::cbrt(n / (12 * 110.0 * 110.0));
    m.hidden = std::max<int64_t>(1, std::llround(110 * count / 128)) * 128;
    m.layers = std::max<int64_t>(1, std::llround(n / (12.0 * static_cast<double>(m.hidden * m.hidden))));
    guess(fmt::format("usual shape for {} billion parameters", *billions));
  } else {
    out_.reason = fmt::format("model '{}': shape neither stated nor in the catalog", text("model_name"));
    return false;
  }
  m.layers = whole("layers", m.layers);
  m.hidden = whole("hidden", m.hidden);
  m.heads = whole("heads", known ? m.heads : std::max<int64_t>(1, m.hidden / 128));
  m.kv_heads = whole("kv_heads", known ? m.kv_heads : m.heads);
  if (m.heads % m.kv_heads) m.kv_heads = m.heads;
  if (!known) m.head_dim = std::max<int64_t>(1, m.hidden / m.heads);
  m.activation = gated ? ActivationKind::kSwiGlu : ActivationKind::kGelu;
  const int64_t usual = gated ? (m.hidden * 8 / 3 + 255) / 256 * 256 : 4 * m.hidden;
  m.ffn = whole("ffn_hidden", known ? m.ffn : usual);
  const int64_t habit = software_.habits.vocab ? software_.habits.vocab : 50304;
  m.vocab = whole("vocab", known ? m.vocab : habit);
  if (software_.habits.engine == "aleph-alpha") m.vocab = software_.habits.vocab;
  if (!known) {
    m.norm = gated ? NormKind::kRmsNorm : NormKind::kLayerNorm;
    m.tied_embeddings = !gated;
    m.max_positions = 2048;
  }
  validate(m);
  return true;
}

void RowReader::read_precision() {
  RunSpec& run = out_.input.run;
  const std::string stated =
      lower(text("precision_class").empty() ? text("precision") : text("precision_class"));
  for (Precision p : {Precision::kFp8, Precision::kFp4, Precision::kBf16, Precision::kFp16, Precision::kFp32})
    if (stated.starts_with(to_string(p))) {
      run.precision = p;
      return;
    }
  const AcceleratorSpec& a = accelerator_->spec;
  run.precision = a.family == "V100" ? Precision::kFp16 : Precision::kBf16;
  if (software_.habits.engine == "mlperf") {  // submissions race: the narrowest type that the chip had then
    if (a.fp8 > FlopsPerSecond(0) && !a.family.starts_with("TPU")) run.precision = Precision::kFp8;
    if (a.family == "Gaudi2" && software_.release.ends_with("v3.0")) run.precision = Precision::kBf16;
    if (a.fp4 > FlopsPerSecond(0) && software_.release.ends_with("v5.1") && !a.family.starts_with("MI"))
      run.precision = Precision::kFp4;
  }
  assume(fmt::format("precision {}", to_string(run.precision)));
}

void RowReader::read_training() {
  RunSpec& run = out_.input.run;
  const std::string precision = lower(text("precision"));
  if (out_.kind == "peft" || contains(name_, "lora") || contains(notes_, "lora bf16") ||
      contains(notes_, "finetuning lora"))
    run.training = contains(precision, "nf4") ? TrainingKind::kQlora : TrainingKind::kLora;
  else if (out_.kind == "sft") run.training = TrainingKind::kFineTune;
  // The first adapters of that name put learned tokens before the text and leave the matrices alone.
  if (contains(notes_, "(adapter)")) run.lora_rank = 0;

  const std::string recompute = lower(text("activation_recompute"));
  run.recompute = recompute.starts_with("full")        ? Recompute::kFull
                  : recompute.starts_with("selective") ? Recompute::kSelective
                  : recompute.starts_with("none")      ? Recompute::kNone
                                                       : software_.habits.recompute;
  out_.recompute_stated = !recompute.empty();
  if (recompute.empty()) assume(fmt::format("recompute {}", to_string(run.recompute)));
  // litgpt's multi-accelerator recipes wrap each block in a checkpoint
  if (recompute.empty() && software_.habits.engine == "litgpt" &&
      contains(lower(text("zero_stage_fsdp")), "fsdp"))
    run.recompute = Recompute::kFull;
  const std::string flash = lower(text("flash_attention"));
  run.flash_attention = flash == "yes" || (flash != "no" && software_.habits.flash_attention);
  run.optimizer.gradient_bytes = software_.habits.gradient_bytes;
  // Megatron-DeepSpeed accumulates in 32 bits only under its bf16 optimizer
  if (software_.habits.engine == "megatron-deepspeed" && run.precision == Precision::kFp16)
    run.optimizer.gradient_bytes = 2;
  if (software_.habits.fp32_parameters) run.optimizer.master_bytes = 0;
}

int64_t zero_stage_of(const std::string& stated, const EngineHabits& habits) {
  if (stated.empty()) return habits.zero_stage;
  if (contains(stated, "z2") || contains(stated, "no model reshard")) return 2;
  if (contains(stated, "fsdp") || contains(stated, "zero3")) return 3;
  if (contains(stated, "zero2")) return 2;
  if (contains(stated, "zero1") || contains(stated, "distributed optimizer")) return 1;
  if (contains(stated, "ddp") && habits.engine != "megatron-bridge") return 0;
  return habits.zero_stage;
}

BytesPerSecond between_per_accelerator(const std::string& stated, int64_t per_node) {
  static const std::regex per_accelerator(R"((\d{1,6})\s*gb/s[^,;]*per gpu)");
  static const std::regex node_to_node(R"((\d{1,6})\s*gb/s node-node)");
  static const std::regex links(R"((\d{1,6})\s*x[^,;]*?(\d{1,6})\s*gb/s per node)");
  std::smatch m;
  const double node = static_cast<double>(per_node), bits = 1e9 / 8;
  if (std::regex_search(stated, m, per_accelerator)) return BytesPerSecond(std::stod(m[1]) * bits);
  if (std::regex_search(stated, m, node_to_node)) return BytesPerSecond(std::stod(m[1]) * bits / node);
  static const std::regex omni(R"((\d{1,6})\s*x omni-path (\d{1,6})\s*gb/s per node)");
  if (std::regex_search(stated, m, omni) || std::regex_search(stated, m, links))
    return BytesPerSecond(std::stod(m[1]) * std::stod(m[2]) * bits / node);
  return BytesPerSecond(0);
}

// "TPU v3-256" counts cores, two to a chip up to v5p; from v5e on the number counts chips.
int64_t RowReader::slice_accelerators() {
  static const std::regex slice(R"(v(\d)([ep]?)-(\d{1,6}))");
  std::smatch m;
  if (!accelerator_->spec.family.starts_with("TPU") || !std::regex_search(notes_, m, slice)) return 0;
  const bool cores = m[2] == "p" || m[1].str() < "5";
  const int64_t chips = std::max<int64_t>(1, std::stoll(m[3].str()) / (cores ? 2 : 1));
  assume(fmt::format("{} chips in a slice called {}", chips, m[0].str()));
  return chips;
}

void RowReader::read_layout() {
  PlanInput& in = out_.input;
  LayoutSpec& l = in.run.layout;
  BatchSpec& b = in.run.batch;
  int64_t tp = whole("tp", 0), pp = whole("pp", 0), cp = whole("cp", 1);
  const int64_t product = std::max<int64_t>(1, tp) * std::max<int64_t>(1, pp) * cp * whole("dp", 1);
  int64_t accelerators = whole("n_gpus", 0);
  if (!accelerators) accelerators = slice_accelerators();
  if (!accelerators) {
    accelerators = product > 1 ? product : accelerator_->per_node;
    assume(fmt::format("{} accelerators", accelerators));
  }
  in.hardware = make_hardware(
      *accelerator_, accelerators, whole("gpus_per_node", 0),
      between_per_accelerator(lower(text("inter_bw")), whole("gpus_per_node", accelerator_->per_node)));

  if (std::max<int64_t>(1, tp) * std::max<int64_t>(1, pp) > accelerators / cp) {
    assume(fmt::format("tensor {}, pipeline {}, context {} are a misprint: more than {} accelerators", tp, pp,
                       cp, accelerators));
    tp = pp = 0, cp = 1;
  }

  const std::string zero = lower(text("zero_stage_fsdp"));
  l.zero_stage = zero_stage_of(zero, software_.habits);
  l.context = cp;
  l.expert = in.run.model.experts ? whole("ep", 1) : 1;
  b.sequence_length =
      whole("seq_len", software_.habits.sequence_length ? software_.habits.sequence_length : 2048);
  if (text("seq_len").empty()) {
    static const std::regex longest(R"(longest example (\d{1,9}) tokens)");
    std::smatch m;
    if (std::regex_search(notes_, m, longest)) {
      b.sequence_length = std::stoll(m[1]);
      out_.mean_length =
          std::max<int64_t>(1, b.sequence_length / 8);  // instruction data: the mean is far below
    }
    assume(fmt::format("sequence length {}", b.sequence_length));
  }
  b.micro_batch = whole("micro_batch", 1);
  l.tensor = std::max<int64_t>(1, tp);
  l.pipeline = std::max<int64_t>(1, pp);
  l.data = std::max<int64_t>(1, accelerators / (l.tensor * l.pipeline * l.context));
  const bool stated_micro = number("micro_batch").has_value();
  auto batch = number("global_batch");
  // Its step's time and its rate tell it.
  if (const auto step = number("iteration_time_s");
      !batch && step && out_.metric == Metric::kTokensPerSecondPerAccelerator) {
    const double tokens = *step * out_.measured * static_cast<double>(accelerators);
    batch = std::clamp(std::round(tokens / static_cast<double>(b.sequence_length)), 1.0, kMostOfAnything);
    assume(fmt::format("global batch {}, from the step's time and rate", *batch));
  }
  const bool alone = l.zero_stage == 3 && !contains(zero, "tp");  // sharding and nothing else
  const bool layout_open = !tp && !pp && accelerators > 1 && !alone;
  b.global_batch = batch ? std::max<int64_t>(1, std::llround(*batch)) : b.micro_batch * l.data;
  if (layout_open || (!batch && !stated_micro && !tp && !pp)) {
    assume_layout(in, {.layout = !layout_open,
                       .micro_batch = stated_micro,
                       .global_batch = batch.has_value(),
                       .recompute = out_.recompute_stated,
                       .zero = !zero.empty() || software_.recognised});
    guess(fmt::format("layout {}, recompute {}", to_string(l), to_string(in.run.recompute)));
    if (!batch) assume(fmt::format("global batch {}", b.global_batch));
    if (!stated_micro) assume(fmt::format("micro-batch {}", b.micro_batch));
    return;
  }
  // Fewer sequences than replicas cannot be: the rest of the accelerators share each sequence.
  if (batch && tp && *batch < static_cast<double>(l.data)) {
    const int64_t sequences = b.global_batch;
    if (l.data % sequences == 0) {
      l.context *= l.data / sequences;
      l.data = sequences;
      assume(fmt::format("context parallel {}: the batch has {} sequences", l.context, sequences));
    }
  }
  // the table's batch belongs to the table's layout, even where its product is not the accelerator count
  if (in.run.model.experts) {
    l.expert_tensor = software_.habits.engine == "simumax" ? 0 : 1;
    if (!number("ep"))
      l.expert = std::min<int64_t>(in.run.model.experts, std::max<int64_t>(1, l.data * l.context));
    while (l.expert > 1 && (in.run.model.experts % l.expert || (l.data * l.context * l.tensor) % l.expert))
      --l.expert;
  }
  const std::string sp = lower(text("sequence_parallel"));
  l.sequence_parallel = l.tensor > 1 && (sp == "yes" || (sp != "no" && in.run.flash_attention));
  l.virtual_stages = l.pipeline > 1 ? whole("vpp", 1) : 1;
  if (l.pipeline > 1 && text("vpp").empty() && software_.habits.chunks > 1) {
    const int64_t per_stage = in.run.model.layers / l.pipeline;
    l.virtual_stages = std::min(software_.habits.chunks, std::max<int64_t>(1, per_stage));
    while (l.virtual_stages > 1 && per_stage % l.virtual_stages) --l.virtual_stages;
    assume(fmt::format("{} chunks per pipeline worker", l.virtual_stages));
  }
  if (l.virtual_stages > 1) l.schedule = PipelineSchedule::kInterleaved;
  static const std::regex group(R"(fsdp x(\d{1,9}))");
  std::smatch m;
  if (std::regex_search(zero, m, group))
    l.zero_group = std::min<int64_t>(std::stoll(m[1]), l.data * l.context);

  if (batch) {
    if (!stated_micro && l.zero_stage == 3 && l.pipeline == 1)
      b.micro_batch =
          std::clamp<int64_t>(b.global_batch / l.data, 1, std::max<int64_t>(1, 16384 / b.sequence_length));
  } else {
    b.global_batch = b.micro_batch * l.data * (l.pipeline > 1 ? 4 * l.pipeline : 1);
    // Large clusters train on millions of tokens a step.
    if (out_.kind == "dense" && accelerators >= 256 && !stated_micro && l.zero_stage != 3) {
      const int64_t usual = 4'000'000 / b.sequence_length, parts = b.micro_batch * l.data;
      b.global_batch = std::max(b.global_batch, (usual + parts - 1) / parts * parts);
    }
    assume(fmt::format("global batch {}", b.global_batch));
  }
  if (!stated_micro) assume(fmt::format("micro-batch {}", b.micro_batch));
}

void RowReader::read_measured() {
  PublishedRun& o = out_;
  if (const auto s = number("iteration_time_s")) o.metric = Metric::kStepSeconds, o.measured = *s;
  else if (const auto r = number("tokens_per_s_per_gpu"))
    o.metric = Metric::kTokensPerSecondPerAccelerator, o.measured = *r;
  else if (const auto f = number("tflops_per_gpu")) o.metric = Metric::kTeraflops, o.measured = *f;
  else if (const auto u = number("mfu_pct")) o.metric = Metric::kMfuPercent, o.measured = *u;
  o.hardware_flops = text("flops_convention") == "hardware";
  o.against_fp8_peak = contains(notes_, "fp8 peak");
  o.peak_memory_gb = number("peak_mem_GB");
  o.allocated_only = contains(notes_, "memory=allocated");
  // litgpt prints the allocator's peak over 1e9; the others print GiB.
  if (o.peak_memory_gb && o.input.engine == "litgpt")
    *o.peak_memory_gb = in_gibibytes(Bytes(*o.peak_memory_gb * 1e9));
  static const std::regex outcome(R"(outcome=([^;]*))");
  std::smatch m;
  if (std::regex_search(notes_, m, outcome)) {
    o.failed = true;
    o.out_of_memory = contains(m[1].str(), "oom");
    if (!o.out_of_memory) o.reason = fmt::format("failed for another reason than memory: {}", m[1].str());
  } else if (o.metric == Metric::kNone && !o.peak_memory_gb) {
    o.reason = "no step time, rate, MFU or memory measured";
  }
  // A rate that would need several times the accelerator's peak is that of the whole cluster.
  if (o.metric == Metric::kTokensPerSecondPerAccelerator && number("params_B") && number("n_gpus")) {
    const CatalogAccelerator* a = accelerator_of_row();
    const double needed = 6e9 * *number("params_B") * o.measured;
    const bool all_active = out_.kind.starts_with("dense") || out_.kind == "sft" || out_.kind == "peft";
    if (a && all_active && *number("n_gpus") > 1 &&
        needed > 2 * std::max(a->spec.fp8, std::max(a->spec.bf16, a->spec.fp16)).value()) {
      o.measured /= *number("n_gpus");
      assume("tokens per second of all accelerators together: of one they would need several times its peak");
    }
  }
  // Seconds of a step whose batch is not stated tell nothing; its rate does.
  if (o.metric == Metric::kStepSeconds && !number("global_batch")) {
    if (const auto rate = number("tokens_per_s_per_gpu"))
      o.metric = Metric::kTokensPerSecondPerAccelerator, o.measured = *rate;
    else if (const auto f = number("tflops_per_gpu")) o.metric = Metric::kTeraflops, o.measured = *f;
    else if (const auto u = number("mfu_pct")) o.metric = Metric::kMfuPercent, o.measured = *u;
  }
}

// No published cell is longer than a tenth of this; patterns are looked for in every one.
constexpr size_t kLongestCell = 4096;

void RowReader::read() {
  for (const std::string& column : t_.columns())
    if (const size_t length = t_.text(r_, column).size(); length > kLongestCell)
      fail(ErrorKind::kData, "{}, column {}: {} characters, expected at most {}", t_.where(r_), column,
           length, kLongestCell);
  out_.id = text("id");
  out_.source = text("source");
  out_.model_name = text("model_name");
  out_.kind = text("row_kind");
  name_ = lower(out_.model_name);
  notes_ = lower(text("notes"));
  size_t digits = 0;
  while (digits < out_.id.size() && !std::isdigit(static_cast<unsigned char>(out_.id[digits]))) ++digits;
  out_.source_group = out_.id.substr(0, digits);
  while (!out_.source_group.empty() && !std::isalnum(static_cast<unsigned char>(out_.source_group.back())))
    out_.source_group.pop_back();
  software_ =
      identify_software(fmt::format("{}; {}; precision={};", out_.source, text("notes"), text("precision")));
  out_.input.engine = software_.habits.engine;
  out_.input.release = software_.release;
  read_measured();
  if (!out_.reason.empty()) return;
  if (text("seq_len").empty() && contains(notes_, "variable length") && contains(notes_, "unpacked")) {
    out_.reason = "texts of unequal, unstated length: tokens of a step cannot be known";
    return;
  }
  if (out_.kind == "multimodal") {
    out_.reason = "multimodal model: the planner knows text transformers only";
    return;
  }
  if (!read_hardware()) return;
  if (software_.habits.engine.empty()) {
    // Unknown software still shares a code base with others: which, its hardware and layout tell.
    const bool sharded = contains(lower(text("zero_stage_fsdp")), "fsdp") && !number("tp") && !number("pp");
    std::string& lineage = software_.habits.lineage;
    if (lineage.empty())
      lineage = accelerator_->spec.family.starts_with("TPU") ? "xla" : sharded ? "torch" : "megatron";
    out_.input.engine = kOtherSoftware + software_.habits.lineage;
  }
  if (!read_model()) return;
  read_precision();
  read_training();
  read_layout();
  const LayoutSpec& l = out_.input.run.layout;
  out_.model_on_hardware =
      fmt::format("{}|{}|{}", out_.input.engine, out_.model_name, accelerator_->spec.family);
  out_.configuration =
      fmt::format("{}|{}|{}|tp{} pp{} cp{}", out_.model_on_hardware, to_string(out_.input.run.precision),
                  out_.input.hardware.accelerators, l.tensor, l.pipeline, l.context);
}

}  // namespace

std::vector<PublishedRun> read_published_runs(const CsvTable& table, const std::string& file) {
  for (const char* column : {"id", "source", "model_name", "gpu", "seq_len", "micro_batch", "notes"})
    table.require_column(column);
  std::vector<PublishedRun> runs(table.rows());
  for (size_t r = 0; r < table.rows(); ++r) {
    runs[r].file = file;
    try {
      RowReader(table, r, runs[r]).read();
    } catch (const Error& e) {
      runs[r].reason = e.what();
    }
  }
  return runs;
}

StepTime published_step_terms(const PublishedRun& run, const Efficiency& efficiency) {
  if (!run.mean_length) return predict_step_time(run.input, efficiency);
  PlanInput mean = run.input;
  mean.run.batch.sequence_length = run.mean_length;
  return predict_step_time(mean, efficiency);
}
Seconds predicted_step(const PublishedRun& run, const Efficiency& efficiency) {
  return published_step_terms(run, efficiency).total;
}

double predicted_in_metric(const PublishedRun& run, Seconds step) {
  const RunSpec& r = run.input.run;
  const double accelerators = static_cast<double>(run.input.hardware.accelerators);
  switch (run.metric) {
    case Metric::kNone:
      return 0;
    case Metric::kStepSeconds:
      return step.value();
    case Metric::kTokensPerSecondPerAccelerator:
      return static_cast<double>(r.batch.tokens()) / step.value() / accelerators;
    case Metric::kTeraflops:
    case Metric::kMfuPercent:
      break;
  }
  double flops = model_flops_per_step(run.input).value();
  if (run.hardware_flops && r.recompute == Recompute::kFull) flops *= 4.0 / 3;
  const double rate = flops / step.value() / accelerators;
  if (run.metric == Metric::kTeraflops) return rate / 1e12;
  const AcceleratorSpec& a = run.input.hardware.accelerator;
  const FlopsPerSecond peak =
      run.against_fp8_peak && a.fp8 > FlopsPerSecond(0) ? a.fp8 : std::max(a.bf16, a.fp16);
  return 100 * rate / peak.value();
}

std::string_view to_string(Metric metric) {
  constexpr std::string_view kNames[] = {"none", "step_s", "tokens_per_s_per_accelerator", "tflops",
                                         "mfu_pct"};
  return kNames[static_cast<size_t>(metric)];
}

}  // namespace stoker::plan
