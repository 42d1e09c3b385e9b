#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/progress.h"
#include "cli/command.h"
#include "cli/load_model.h"
#include "eval/evaluate.h"
#include "spec/hf_config.h"

namespace stoker::cli {
namespace {

struct EvalFlags {
  std::string model, data, split = "held_out", precision = "bf16";
  int64_t length = 0, rows = 8, windows = 0;
  bool concatenated = false, json = false;
};

void run(const EvalFlags& f) {
  ops::Context context;
  const LoadedModel m = load_model(f.model, precision_from(f.precision), context);
  data::LoaderOptions o;
  o.split = f.split;
  o.sequence_length = f.length ? f.length : std::min<int64_t>(1024, m.store->spec().max_positions);
  o.mode = f.concatenated ? data::PackingMode::kConcatenated : data::PackingMode::kDocumentMasks;
  o.sequential = true;
  const data::Loader loader(io::real_file_system(), f.data, o);
  if (loader.manifest().tokenizer.vocabulary > m.store->spec().vocab)
    fail(ErrorKind::kUsage,
         "the dataset's tokenizer has {} tokens, the model {}: they do not belong together",
         loader.manifest().tokenizer.vocabulary, m.store->spec().vocab);
  Transformer model(*m.store, {f.rows, o.sequence_length, Recompute::kNone, false}, context);
  const uint64_t windows =
      f.windows ? std::min<uint64_t>(static_cast<uint64_t>(f.windows), loader.samples_per_epoch())
                : loader.samples_per_epoch();
  eval::Score s;
  {
    Progress progress("evaluating", windows * static_cast<uint64_t>(o.sequence_length), "tokens");
    s = eval::evaluate(model, loader, f.rows, f.windows, [&](uint64_t n) { progress.add(n); });
  }
  if (f.json) {
    fmt::print("{}\n", nlohmann::json{{"loss", s.loss},
                                      {"bits_per_byte", s.bits_per_byte},
                                      {"perplexity", std::exp(s.loss)},
                                      {"tokens", s.targets},
                                      {"split", f.split},
                                      {"model", m.source},
                                      {"dataset", loader.manifest_hash().hex()}}
                           .dump(2));
    return;
  }
  fmt::print("{} on {} ({} tokens): loss {:.4f}, perplexity {:.2f}, {:.4f} bits per byte\n", m.source,
             f.split, s.targets, s.loss, std::exp(s.loss), s.bits_per_byte);
}

}  // namespace

void add_eval(Command& app) {
  auto* cmd = app.add_subcommand("eval", "Loss and bits per byte of a model on a dataset's split");
  auto f = std::make_shared<EvalFlags>();
  cmd->add_option("model", f->model, "Run directory, checkpoint, or Hugging Face directory")->required();
  cmd->add_option("--data", f->data, "Dataset that `stoker data prepare` wrote")->required();
  cmd->add_option("--split", f->split, "Split to score")->capture_default_str();
  cmd->add_option("--length", f->length, "Window in tokens (default: the model's positions, at most 1024)");
  cmd->add_option("--rows", f->rows, "Windows a batch")->capture_default_str()->positive();
  cmd->add_option("--windows", f->windows, "Score only this many windows, spread evenly (default: all)");
  cmd->add_option("--precision", f->precision, "bf16 or fp32")->capture_default_str();
  cmd->add_flag("--concatenated", f->concatenated, "Attend across document boundaries");
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer("Example:\n  stoker eval runs/demo --data data/linux-doc");
  cmd->callback([f] { run(*f); });
}

}  // namespace stoker::cli
