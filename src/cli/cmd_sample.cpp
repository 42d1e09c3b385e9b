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

struct Flags {
  std::string model, prompt, tokenizer, precision = "bf16";
  eval::SamplerSettings sampler;
  int64_t tokens = 128;
  int count = 1;
  bool json = false;
};

// Streams one text to stdout unless JSON is wanted; returns it.
std::string generate(Decoder& decoder, const tokenizer::Tokenizer& tok, const Flags& f, uint64_t first_draw,
                     int64_t& produced) {
  std::vector<int32_t> prompt =
      f.prompt.empty() ? std::vector<int32_t>{} : tok.encode(f.prompt, tokenizer::SpecialTokens::kRecognise);
  if (const auto end = tok.end_of_text())
    prompt.insert(prompt.begin(), *end);  // as documents begin in training
  if (prompt.empty())
    fail(ErrorKind::kUsage,
         "--prompt is empty and the tokenizer has no end-of-text token to begin from: give a prompt");
  decoder.reset();
  std::span<const float> logits;
  for (const int32_t t : prompt) logits = decoder.next(t);
  tokenizer::StreamDecoder stream(tok);
  std::string text;
  const auto emit = [&](const std::string& piece) {
    text += piece;
    if (!f.json) fmt::print("{}", piece), std::fflush(stdout);
  };
  if (!f.json) fmt::print("{}", f.prompt);
  for (produced = 0; produced < f.tokens && decoder.length() < decoder.capacity() && !stop_requested();
       ++produced) {
    const int32_t next = eval::sample(logits.first(static_cast<size_t>(std::min<int64_t>(
                                          tok.vocab_size(), static_cast<int64_t>(logits.size())))),
                                      f.sampler, first_draw + static_cast<uint64_t>(produced));
    if (tok.end_of_text() == next) break;
    emit(stream.push(next));
    logits = decoder.next(next);
  }
  emit(stream.finish());
  if (!f.json) fmt::print("\n");
  return text;
}

void run(const Flags& f) {
  eval::validate(f.sampler);
  ops::Context context;
  const LoadedModel m = load_model(f.model, precision_from(f.precision), context);
  if (f.tokenizer.empty() && m.tokenizer_json.empty())
    fail(ErrorKind::kUsage, "{} has no tokenizer.json beside its weights: give one with --tokenizer",
         m.source);
  const auto tok = f.tokenizer.empty() ? tokenizer::Tokenizer::from_json(m.tokenizer_json)
                                       : tokenizer::Tokenizer::load(f.tokenizer);
  Decoder decoder(*m.store, std::min<int64_t>(m.store->spec().max_positions, 8192), context);
  nlohmann::json samples = nlohmann::json::array();
  for (int i = 0; i < f.count && !stop_requested(); ++i) {
    if (!f.json && i) fmt::print("---\n");
    int64_t produced = 0;
    const std::string text = generate(decoder, tok, f, static_cast<uint64_t>(i) << 32, produced);
    samples.push_back({{"text", text}, {"tokens", produced}});
  }
  if (f.json)
    fmt::print("{}\n", nlohmann::json{{"model", m.source}, {"prompt", f.prompt}, {"samples", samples}}.dump(
                           2, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

void add_sample(Command& app) {
  auto* cmd = app.add_subcommand("sample", "Write text with a trained model");
  auto f = std::make_shared<Flags>();
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
