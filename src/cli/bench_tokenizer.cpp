#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "cli/command.h"
#include "data/tokenizer/measure.h"
#include "io/file_system.h"

namespace stoker::cli {
namespace {

struct TokenizerBenchFlags {
  std::vector<std::string> files;
  std::string split = "llama3";
  tokenizer::TrainOptions train;
  int passes = 5;
  bool json = false;
};

void run(TokenizerBenchFlags flags) {
  flags.train.split = tokenizer::split_from_name(flags.split);
  std::string text;
  for (const std::string& path : flags.files)
    text += io::read_text(io::real_file_system(), path, uint64_t{4} << 30);
  if (text.empty()) fail(ErrorKind::kUsage, "the files hold no text: nothing to measure");
  const auto s = tokenizer::measure_tokenizer(text, flags.train, flags.passes);
  const double mb = static_cast<double>(s.bytes) / 1e6;
  if (flags.json) {
    fmt::print("{}\n", nlohmann::json{{"bytes", s.bytes},
                                      {"split", flags.split},
                                      {"vocab_size", flags.train.vocab_size},
                                      {"pieces", s.pieces},
                                      {"distinct_pieces", s.distinct_pieces},
                                      {"tokens", s.tokens},
                                      {"train_threads", s.train_threads},
                                      {"train_count_s", s.count_s},
                                      {"train_merge_s", s.merge_s},
                                      {"train_mb_per_s", s.train_mb_per_s()},
                                      {"split_mb_per_s", mb / s.split_s},
                                      {"encode_first_mb_per_s", s.encode_first_mb_per_s()},
                                      {"encode_mb_per_s", s.encode_mb_per_s()},
                                      {"decode_mb_per_s", mb / s.decode_s}}
                           .dump(2));
    return;
  }
  fmt::print("text        {}, {} pieces, {} distinct, {} tokens ({:.2f} bytes each)\n", human_bytes(mb * 1e6),
             human_count(static_cast<double>(s.pieces)), s.distinct_pieces,
             human_count(static_cast<double>(s.tokens)),
             static_cast<double>(s.bytes) / static_cast<double>(s.tokens));
  fmt::print("train       {:8.1f} MB/s on {} threads: {:.0f} ms counting, {:.0f} ms merging to {} tokens\n",
             s.train_mb_per_s(), s.train_threads, s.count_s * 1e3, s.merge_s * 1e3, flags.train.vocab_size);
  fmt::print("split       {:8.1f} MB/s on one core\n", mb / s.split_s);
  fmt::print(
      "encode      {:8.1f} MB/s on one core; first passes, each with a new tokenizer, {:.1f} MB/s (medians "
      "of {})\n",
      s.encode_mb_per_s(), s.encode_first_mb_per_s(), s.encode_first_s.size());
  fmt::print("decode      {:8.1f} MB/s on one core\n", mb / s.decode_s);
}

}  // namespace

void add_bench_tokenizer(Command& bench_parent) {
  auto* cmd =
      bench_parent.add_subcommand("tokenizer", "Training, splitting, encoding and decoding speed on a text");
  auto flags = std::make_shared<TokenizerBenchFlags>();
  cmd->add_option("files", flags->files, "Text files")->required();
  cmd->add_option("--vocab-size", flags->train.vocab_size, "Tokens to train (default 32768)");
  cmd->add_option("--split", flags->split,
                  "Split pattern: " + tokenizer::split_names() + " (default llama3)");
  cmd->add_option("--passes", flags->passes, "First encoding passes, and as many further ones (default 5)")
      ->range(0, 1000);
  cmd->add_flag("--json", flags->json, "Print JSON (docs/json.md)");
  cmd->footer(
      "Example: stoker bench tokenizer corpus.txt --vocab-size 32768\nAgainst peers: "
      "bench/tokenizer_peers.py corpus.txt");
  cmd->callback([flags] { run(*flags); });
}

}  // namespace stoker::cli
