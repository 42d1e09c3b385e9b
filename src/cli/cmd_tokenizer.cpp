#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/progress.h"
#include "base/stop.h"
#include "cli/command.h"
#include "data/tokenizer/trainer.h"
#include "io/atomic_write.h"
#include "io/file_system.h"

namespace stoker::cli {
namespace {

using tokenizer::SpecialTokens;
using tokenizer::Tokenizer;

struct TokenizerFlags {
  std::string tokenizer, split, output;
  std::vector<std::string> files;
  tokenizer::TrainOptions train;
  std::vector<int32_t> ids;
  bool special = false, template_ = false, json = false, skip_special = false, jsonl = false;
  int show = 0;
};

Tokenizer load(const TokenizerFlags& f) {
  std::optional<tokenizer::SplitPattern> split;
  if (!f.split.empty()) split = tokenizer::split_from_name(f.split);
  return Tokenizer::load(f.tokenizer, split);
}

void train(TokenizerFlags f) {
  f.train.split = tokenizer::split_from_name(f.split.empty() ? "llama3" : f.split);
  tokenizer::BpeTrainer trainer(f.train);
  auto& fs = io::real_file_system();
  uint64_t total = 0;
  for (const auto& path : f.files) total += fs.info(path).size;
  {
    Progress progress("reading text", total);
    for (const auto& path : f.files)
      trainer.add_parallel(fs.open_read(path, io::Access::kSequential)->text(),
                           [&](uint64_t bytes) { progress.add(bytes); });
  }
  if (!trainer.counts().pieces) fail(ErrorKind::kUsage, "the files hold no text: nothing to train on");
  Progress progress("merging", static_cast<uint64_t>(f.train.vocab_size), "tokens");
  const Tokenizer t =
      trainer.train([&](int32_t done, int32_t) { progress.set(static_cast<uint64_t>(done)); });
  t.save(f.output);
  const auto counts = trainer.counts();
  if (f.json) {
    fmt::print("{}\n", nlohmann::json{{"tokenizer", f.output},
                                      {"vocab_size", t.vocab_size()},
                                      {"merges", t.definition().merges.size()},
                                      {"bytes", counts.bytes},
                                      {"skipped_bytes", counts.skipped_bytes},
                                      {"content_hash", t.content_hash().hex()}}
                           .dump(2));
  } else {
    fmt::print(stderr, "wrote {}: {} tokens, {}\n", f.output, t.vocab_size(), t.content_hash().hex());
    if (t.vocab_size() < f.train.vocab_size)
      fmt::print(
          stderr,
          "the text has too few frequent pairs for {} tokens: give more text or a smaller --vocab-size\n",
          f.train.vocab_size);
  }
}

// The text of the files (- is standard input) through a StreamEncoder: memory does not grow with the text.
template <typename Sink>
void encode_files(const TokenizerFlags& f, const Tokenizer& t, Sink&& sink) {
  const auto mode = f.special ? SpecialTokens::kRecognise : SpecialTokens::kAsText;
  std::vector<char> buffer(size_t{1} << 20);
  for (const std::string& path : f.files) {
    std::ifstream file;
    if (path != "-") {
      file.open(path, std::ios::binary);
      if (!file) fail(ErrorKind::kUsage, "cannot read '{}'", path);
    }
    std::istream& in = path == "-" ? std::cin : file;
    tokenizer::StreamEncoder encoder(t, mode);
    std::vector<int32_t> tokens;
    if (f.template_) tokens = t.definition().prefix;
    while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || in.gcount()) {
      if (stop_requested()) fail(ErrorKind::kCancelled, "encoding was stopped");
      encoder.push({buffer.data(), static_cast<size_t>(in.gcount())}, tokens);
      sink(tokens);
      tokens.clear();
    }
    encoder.finish(tokens);
    if (f.template_) tokens.insert(tokens.end(), t.definition().suffix.begin(), t.definition().suffix.end());
    sink(tokens);
  }
}

// Each line a JSON string; each line out the list of its ids.
void encode_jsonl(const TokenizerFlags& f, const Tokenizer& t) {
  const auto mode = f.special ? SpecialTokens::kRecognise : SpecialTokens::kAsText;
  for (const std::string& path : f.files) {
    std::ifstream file;
    if (path != "-") {
      file.open(path);
      if (!file) fail(ErrorKind::kUsage, "cannot read '{}'", path);
    }
    std::istream& in = path == "-" ? std::cin : file;
    std::string line;
    for (uint64_t number = 1; std::getline(in, line); ++number) {
      const auto text = nlohmann::json::parse(line, nullptr, false);
      if (!text.is_string())
        fail(ErrorKind::kData, "{}, line {}: expected a JSON string, found '{}'", path, number,
             line.substr(0, 80));
      const auto& value = text.get_ref<const std::string&>();
      fmt::print(
          "{}\n",
          nlohmann::json(f.template_ ? t.encode_with_template(value, mode) : t.encode(value, mode)).dump());
    }
  }
}

void encode(const TokenizerFlags& f) {
  const Tokenizer t = load(f);
  if (f.jsonl) return encode_jsonl(f, t);
  if (!f.output.empty()) {
    io::AtomicFile out(io::real_file_system(), f.output);
    uint64_t count = 0;
    encode_files(f, t, [&](const std::vector<int32_t>& tokens) {
      out.file().append(tokens.data(), tokens.size() * sizeof(int32_t));
      count += tokens.size();
    });
    out.commit();
    if (f.json) fmt::print("{}\n", nlohmann::json{{"output", f.output}, {"tokens", count}}.dump(2));
    else fmt::print(stderr, "wrote {}: {} tokens, 4 bytes each, little-endian\n", f.output, count);
    return;
  }
  if (f.json) {
    std::vector<int32_t> all;
    encode_files(f, t, [&](const auto& tokens) { all.insert(all.end(), tokens.begin(), tokens.end()); });
    fmt::print("{}\n", nlohmann::json{{"ids", all}, {"tokens", all.size()}}.dump());
    return;
  }
  bool first = true;
  encode_files(f, t, [&](const std::vector<int32_t>& tokens) {
    fmt::memory_buffer line;
    for (int32_t id : tokens) {
      fmt::format_to(std::back_inserter(line), "{}{}", first ? "" : " ", id);
      first = false;
    }
    std::fwrite(line.data(), 1, line.size(), stdout);
  });
  std::fputc('\n', stdout);
}

void decode(const TokenizerFlags& f) {
  const Tokenizer t = load(f);
  std::vector<int32_t> ids = f.ids;
  if (ids.empty()) {
    for (int64_t id; std::cin >> id;) {
      if (id < 0 || id >= t.vocab_size())
        fail(ErrorKind::kData, "id {} is outside the vocabulary of {}", id, t.vocab_size());
      ids.push_back(static_cast<int32_t>(id));
    }
    if (!std::cin.eof()) fail(ErrorKind::kData, "standard input should hold token ids separated by spaces");
  }
  const std::string text = t.decode(ids, f.skip_special);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

std::string printable(std::string_view bytes) {
  return nlohmann::json(std::string(bytes)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void show(const TokenizerFlags& f) {
  const Tokenizer t = load(f);
  const auto& d = t.definition();
  if (f.json) {
    auto added = nlohmann::json::array();
    for (const auto& a : d.added)
      added.push_back({{"id", a.id}, {"content", a.content}, {"special", a.special}});
    nlohmann::json out{{"vocab_size", t.vocab_size()},
                       {"merges", d.merges.size()},
                       {"split", tokenizer::split_name(d.split)},
                       {"normalizer", d.nfc ? nlohmann::json("NFC") : nlohmann::json()},
                       {"ignore_merges", d.ignore_merges},
                       {"add_prefix_space", d.add_prefix_space},
                       {"added_tokens", added},
                       {"content_hash", t.content_hash().hex()}};
    out["end_of_text"] = t.end_of_text() ? nlohmann::json(*t.end_of_text()) : nlohmann::json();
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("tokens       {} ({} merges)\nsplit        {}\nnormaliser   {}\n", t.vocab_size(),
             d.merges.size(), tokenizer::split_name(d.split), d.nfc ? "NFC" : "none");
  if (d.ignore_merges) fmt::print("whole words  looked up before merging (ignore_merges)\n");
  if (d.add_prefix_space) fmt::print("prefix       a space before text that does not start with one\n");
  fmt::print("content hash {}\n", t.content_hash().hex());
  for (size_t i = 0; i < d.added.size() && i < 20; ++i)
    fmt::print("added        {:>7} {}{}\n", d.added[i].id, printable(d.added[i].content),
               d.added[i].special ? " (special)" : "");
  if (d.added.size() > 20) fmt::print("             and {} more\n", d.added.size() - 20);
  for (int32_t id = 0; id < std::min(f.show, t.vocab_size()); ++id)
    fmt::print("{:>8} {}\n", id, printable(t.token_bytes(id)));
}

Command* with_tokenizer(Command* cmd, const std::shared_ptr<TokenizerFlags>& flags) {
  cmd->add_option(
         "-t,--tokenizer", flags->tokenizer,
         "tokenizer.json, a directory with one (or with vocab.json and merges.txt), or a .tiktoken file")
      ->required();
  cmd->add_option("--split", flags->split,
                  "Split pattern, for files that do not name theirs: " + tokenizer::split_names());
  return cmd;
}

}  // namespace

void add_data_tokenizer(Command& data_parent) {
  auto* parent = data_parent.add_subcommand("tokenizer", "Train a tokenizer; encode, decode, show");
  parent->footer(
      "Examples:\n"
      "  stoker data tokenizer train corpus.txt -o tokenizer --vocab-size 32768\n"
      "  echo Hello | stoker data tokenizer encode -t tokenizer -");
  parent->require_subcommand(1, 1);
  auto flags = std::make_shared<TokenizerFlags>();

  auto* cmd = parent->add_subcommand("train", "Train byte-level BPE on text files");
  cmd->add_option("files", flags->files, "Text files (UTF-8)")->required();
  cmd->add_option("-o,--output", flags->output, "Where to write: a directory, or a name that ends in .json")
      ->required();
  cmd->add_option("--vocab-size", flags->train.vocab_size,
                  "Tokens, special ones and bytes included (default 32768)");
  cmd->add_option("--split", flags->split,
                  "Split pattern: " + tokenizer::split_names() + " (default llama3)");
  cmd->add_option("--special", flags->train.special_tokens,
                  "Special tokens, ids from 0 (default <|endoftext|>)");
  cmd->add_option("--min-frequency", flags->train.min_frequency, "Merge no pair seen less often (default 2)");
  cmd->add_flag("--nfc", flags->train.nfc, "Compose characters first (Unicode NFC)");
  cmd->add_flag("--json", flags->json, "Print JSON (docs/json.md)");
  cmd->footer("Example: stoker data tokenizer train corpus.txt -o tokenizer --vocab-size 32768");
  cmd->callback([flags] { train(*flags); });

  cmd = with_tokenizer(parent->add_subcommand("encode", "Text to token ids"), flags);
  cmd->add_option("files", flags->files, "Text files, - for standard input")->required();
  cmd->add_flag("--special", flags->special, "Recognise special tokens in the text");
  cmd->add_flag("--template", flags->template_,
                "Put the tokenizer's template around each file (begin-of-text and such)");
  cmd->add_flag("--jsonl", flags->jsonl,
                "The files hold one JSON string a line; print a list of ids for each");
  cmd->add_option("-o,--output", flags->output, "Write 32-bit ids to this file instead of printing them");
  cmd->add_flag("--json", flags->json, "Print JSON (docs/json.md)");
  cmd->footer("Example: echo Hello | stoker data tokenizer encode -t tokenizer -");
  cmd->callback([flags] { encode(*flags); });

  cmd = with_tokenizer(parent->add_subcommand("decode", "Token ids to text"), flags);
  cmd->add_option("ids", flags->ids, "Token ids (none: from standard input)");
  cmd->add_flag("--skip-special", flags->skip_special, "Leave special tokens out");
  cmd->footer("Example: stoker data tokenizer decode -t tokenizer 15496 11 995");
  cmd->callback([flags] { decode(*flags); });

  cmd = with_tokenizer(parent->add_subcommand("show", "What a tokenizer is"), flags);
  cmd->add_option("--tokens", flags->show, "Also list the first N tokens");
  cmd->add_flag("--json", flags->json, "Print JSON (docs/json.md)");
  cmd->footer("Example: stoker data tokenizer show -t tokenizer.json --tokens 300");
  cmd->callback([flags] { show(*flags); });
}

}  // namespace stoker::cli
