#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/stop.h"
#include "cli/command.h"
#include "cli/load_model.h"
#include "data/tokenizer/tokenizer.h"
#include "eval/sampler.h"
#include "model/decoder.h"

namespace stoker::cli {
namespace {

struct SampleFlags {
  std::string model, prompt, tokenizer, precision = "bf16";
  eval::SamplerSettings sampler;
  int64_t tokens = 128;
  int count = 1;
  bool json = false;
};

// A text begins as documents did in training: with what the tokenizer's own template puts before one, else with the
// model's begin-of-text token, else with the token that ends documents, after which another begins.
std::vector<int32_t> prompt_tokens(const tokenizer::Tokenizer& tok, const LoadedModel& model,
                                   const std::string& text) {
  std::vector<int32_t> out = tok.definition().prefix;
  if (out.empty() && model.bos_token) out.push_back(static_cast<int32_t>(*model.bos_token));
  if (const auto end = tok.end_of_text(); out.empty() && end) out.push_back(*end);
  tok.encode_append(text, out, tokenizer::SpecialTokens::kRecognise);
  if (out.empty())
    fail(ErrorKind::kUsage,
         "--prompt is empty and the tokenizer has no end-of-text token to begin from: give a prompt");
  return out;
}

class Writer {
 public:
  Writer(const SampleFlags& flags, const LoadedModel& model, const tokenizer::Tokenizer& tok,
         ops::Context& context)
      : flags_(flags),
        model_(model),
        tok_(tok),
        prompt_(prompt_tokens(tok, model, flags.prompt)),
        decoder_(*model.store, std::min<int64_t>(model.store->spec().max_positions, 8192), context) {}

  const std::vector<int32_t>& prompt() const { return prompt_; }

  // Streams one text to stdout unless JSON is wanted.
  nlohmann::json text(uint64_t first_draw) {
    decoder_.reset();
    std::span<const float> logits;
    for (const int32_t t : prompt_) logits = decoder_.next(t);
    tokenizer::StreamDecoder stream(tok_);
    std::string text;
    std::vector<int32_t> ids;
    const auto emit = [&](const std::string& piece) {
      text += piece;
      if (!flags_.json) fmt::print("{}", piece), std::fflush(stdout);
    };
    if (!flags_.json) fmt::print("{}", flags_.prompt);
    while (std::ssize(ids) < flags_.tokens && decoder_.length() < decoder_.capacity() && !stop_requested()) {
      const int32_t next = eval::sample(known(logits), flags_.sampler, first_draw + ids.size());
      if (tok_.end_of_text() == next || model_.eos_token == next) break;
      ids.push_back(next);
      emit(stream.push(next));
      logits = decoder_.next(next);
    }
    emit(stream.finish());
    if (!flags_.json) fmt::print("\n");
    return {{"text", text}, {"tokens", ids.size()}, {"ids", ids}};
  }

 private:
  // A model may have more rows than the tokenizer has tokens: those mean nothing.
  std::span<const float> known(std::span<const float> logits) const {
    return logits.first(std::min(static_cast<size_t>(tok_.vocab_size()), logits.size()));
  }

  const SampleFlags& flags_;
  const LoadedModel& model_;
  const tokenizer::Tokenizer& tok_;
  const std::vector<int32_t> prompt_;
  Decoder decoder_;
};

void run(const SampleFlags& f) {
  eval::validate(f.sampler);
  ops::Context context;
  const LoadedModel m = load_model(f.model, precision_from(f.precision), context);
  if (f.tokenizer.empty() && m.tokenizer_json.empty())
    fail(ErrorKind::kUsage, "{} has no tokenizer.json beside its weights: give one with --tokenizer",
         m.source);
  const auto tok = f.tokenizer.empty() ? tokenizer::Tokenizer::from_json(m.tokenizer_json)
                                       : tokenizer::Tokenizer::load(f.tokenizer);
  Writer writer(f, m, tok, context);
  nlohmann::json samples = nlohmann::json::array();
  for (int i = 0; i < f.count && !stop_requested(); ++i) {
    if (!f.json && i) fmt::print("---\n");
    samples.push_back(writer.text(static_cast<uint64_t>(i) << 32));
  }
  if (f.json)
    fmt::print(
        "{}\n",
        nlohmann::json{
            {"model", m.source}, {"prompt", f.prompt}, {"prompt_ids", writer.prompt()}, {"samples", samples}}
            .dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

void add_sample(Command& app) {
  auto* cmd = app.add_subcommand("sample", "Write text with a trained model");
  auto f = std::make_shared<SampleFlags>();
  cmd->add_option("model", f->model, "Run directory, checkpoint, or Hugging Face directory")->required();
  cmd->add_option("--prompt,-p", f->prompt, "Text to continue (default: the start of a document)");
  cmd->add_option("--tokens,-n", f->tokens, "At most this many tokens")->capture_default_str()->positive();
  cmd->add_option("--count", f->count, "How many texts")->capture_default_str()->positive();
  cmd->add_option("--temperature", f->sampler.temperature, "0: always the most likely token")
      ->capture_default_str();
  cmd->add_option("--top-k", f->sampler.top_k, "Draw from the k most likely; 0: all")->capture_default_str();
  cmd->add_option("--top-p", f->sampler.top_p, "Draw from the most likely with this probability together")
      ->capture_default_str();
  cmd->add_option("--seed", f->sampler.seed, "Same seed, same text")->capture_default_str();
  cmd->add_option("--tokenizer", f->tokenizer, "tokenizer.json (default: the one beside the weights)");
  cmd->add_option("--precision", f->precision, "bf16 or fp32")->capture_default_str();
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer("Example:\n  stoker sample runs/demo --prompt \"The scheduler\" --temperature 0.7 --top-p 0.9");
  cmd->callback([f] { run(*f); });
}

}  // namespace stoker::cli
