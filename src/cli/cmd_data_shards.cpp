#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "base/threads.h"
#include "cli/command.h"
#include "data/corpus/build_shards.h"
#include "data/corpus/export_dataset.h"
#include "data/shard/dataset.h"
#include "data/shard/pack_plan.h"
#include "data/tokenizer/tokenizer.h"
#include "io/object_store.h"

namespace stoker::cli {
namespace {
using Json = nlohmann::json;

struct PrepareFlags {
  corpus::PrepareOptions options;
  std::string format;
  double held_out = 0.01;
  uint64_t max_bad = 0, pack = 0;
  bool json = false;
};

double per_second(uint64_t amount, double seconds) {
  return seconds > 0 ? static_cast<double>(amount) / seconds : 0;
}

void print_prepared(const corpus::PrepareReport& r, const PrepareFlags& flags) {
  if (flags.json) {
    fmt::print("{}\n", Json{{"version", r.version.hex()},
                            {"unchanged", r.unchanged},
                            {"files", r.files},
                            {"left_out", r.left_out},
                            {"stored_bytes", r.stored_bytes},
                            {"documents", r.documents},
                            {"text_bytes", r.text_bytes},
                            {"tokens", r.tokens},
                            {"empty", r.empty},
                            {"bad", r.bad},
                            {"vocabulary", r.vocabulary},
                            {"train_s", r.train_s},
                            {"encode_s", r.encode_s}}
                           .dump(2));
    return;
  }
  const auto& out = flags.options.out;
  if (r.unchanged) {
    fmt::print("{} is up to date (version {}): same inputs, tokenizer and settings\n", out, r.version.hex());
    return;
  }
  fmt::print("dataset     {}\nversion     {}\n", out, r.version.hex());
  fmt::print("read        {} files, {} stored{}\n", r.files, human_bytes(static_cast<double>(r.stored_bytes)),
             r.left_out ? fmt::format(" ({} others left out: their names say nothing)", r.left_out) : "");
  fmt::print("documents   {} ({} of text; {} empty and {} bad left out)\n", r.documents,
             human_bytes(static_cast<double>(r.text_bytes)), r.empty, r.bad);
  fmt::print("tokens      {} of a vocabulary of {}: {:.2f} bytes each\n", r.tokens, r.vocabulary,
             per_second(r.text_bytes, static_cast<double>(r.tokens)));
  if (r.train_s > 0)
    fmt::print("tokenizer   trained in {} ({}/s)\n", human_duration(r.train_s),
               human_bytes(per_second(r.text_bytes, r.train_s)));
  fmt::print("encoded     in {} ({}/s)\n", human_duration(r.encode_s),
             human_bytes(per_second(r.text_bytes, r.encode_s)));
}

void add_prepare(Command& data) {
  auto* cmd = data.add_subcommand("prepare", "Text files or JSON lines -> tokens in shards, with a manifest");
  auto f = std::make_shared<PrepareFlags>();
  auto& o = f->options;
  cmd->add_option("input", o.inputs,
                  "Files, folders, quoted globs, s3:// or http:// addresses; plain, .gz, .zst or .xz")
      ->required();
  cmd->add_option("--out", o.out, "Directory to make")->required();
  cmd->add_option("--tokenizer", o.tokenizer, "tokenizer.json to use; without it one is trained");
  cmd->add_option("--vocab-size", o.vocabulary, "Tokens of the tokenizer to train")->capture_default_str();
  cmd->add_option("--split-pattern", o.split_pattern, "How to cut text into words before merging")
      ->capture_default_str();
  cmd->add_option("--held-out", f->held_out, "Fraction of the documents kept from training, by hash")
      ->capture_default_str();
  cmd->add_option("--split-seed", o.split_seed, "Another seed holds out other documents")
      ->capture_default_str();
  cmd->add_option("--format", f->format, "text, jsonl, tar or mds, whatever the names say");
  cmd->add_option("--json-field", o.read.json_field,
                  "Field of a record that is the text (or a JSON pointer: /a/b)")
      ->capture_default_str();
  cmd->add_option("--tar-member", o.read.tar_member, "Extension of the members of a tar that are documents")
      ->capture_default_str();
  cmd->add_option("--bos", o.bos, "Token to put before each document, such as <|begin_of_text|>");
  cmd->add_option("--max-document", o.read.max_document_bytes,
                  "Longer texts are cut at line ends, longer JSON lines are bad")
      ->capture_default_str()
      ->size_suffix();
  auto* bad = cmd->add_option("--max-bad", f->max_bad, "Bad records to tolerate (default: 1 %, at least 10)");
  cmd->add_option("--shard-bytes", o.shard_bytes, "Close a shard at this size")
      ->capture_default_str()
      ->size_suffix();
  cmd->add_option("--threads", o.threads, "Threads (default: all)");
  cmd->add_option("--pack", f->pack,
                  "Also plan rows of whole documents of this many tokens (stoker data pack)")
      ->range(2, 1 << 24);
  cmd->add_flag("--replace", o.replace, "Replace an existing dataset once the new one is complete");
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer(
      "Examples:\n"
      "  stoker data prepare book.txt --out book.stk --vocab-size 4096\n"
      "  stoker data prepare docs/ 'more/**/*.rst.gz' --out docs.stk --held-out 0.02\n"
      "  stoker data prepare c4/*.jsonl.zst --json-field text --tokenizer tokenizer.json --out c4.stk");
  cmd->callback([f, bad] {
    auto& options = f->options;
    if (!f->format.empty()) options.format = corpus::source_format_from_string(f->format);
    if (!(f->held_out >= 0 && f->held_out <= 1))
      fail(ErrorKind::kUsage, "--held-out: expected a fraction from 0 to 1, found {}", f->held_out);
    if (options.read.max_document_bytes < 1 || options.read.max_document_bytes > (uint64_t{1} << 31))
      fail(ErrorKind::kUsage, "--max-document: expected 1 B to 2 GiB, found {}",
           options.read.max_document_bytes);
    if (options.threads < 0 || options.threads > 4096)
      fail(ErrorKind::kUsage, "--threads: expected 1 to 4096, found {}", options.threads);
    options.held_out_ppm = static_cast<uint32_t>(std::llround(f->held_out * 1e6));
    if (bad->count()) options.max_bad = f->max_bad;
    io::ObjectFileSystem urls(
        io::real_file_system(),
        io::patient_object_store_options());  // inputs may be s3://, http:// and https://
    const auto report = corpus::prepare(urls, options);
    for (const auto& line : report.first_bad) fmt::print(stderr, "bad: {}\n", line);
    if (report.bad > report.first_bad.size())
      fmt::print(stderr, "bad: ... all {} in {}/quarantine.jsonl\n", report.bad, options.out);
    auto& fs = io::real_file_system();
    const auto dataset = data::Dataset::open(fs, options.out);
    if (f->pack) {
      const std::string name = data::default_plan_name(corpus::kTrainSplit, f->pack);
      if (!report.unchanged || !fs.exists(data::plan_path(dataset, name)))
        data::build_pack_plan(fs, dataset, std::string(corpus::kTrainSplit), name, f->pack);
    }
    print_prepared(report, *f);
    if (report.train_s > 0 && report.vocabulary < options.vocabulary)
      fmt::print(stderr,
                 "note: the text has no more pairs to merge: a vocabulary of {} instead of {}; the model's "
                 "must be no smaller\n",
                 report.vocabulary, options.vocabulary);
    const auto* held = dataset.manifest().find_split(corpus::kHeldOutSplit);
    if (f->held_out > 0 && report.documents > 0 && (!held || held->documents == 0))
      fmt::print(stderr,
                 "note: none of the documents fell into the held-out part ({} of them asked for): nothing to "
                 "evaluate on. Ask for more "
                 "(--held-out 0.2), or evaluate on data.eval_split=train\n",
                 f->held_out);
  });
}

// The packing plans beside a dataset: those named, else all that a listing shows (plain HTTP has none).
std::vector<std::string> plans_of(io::FileSystem& fs, const data::Dataset& dataset,
                                  std::vector<std::string> named) {
  constexpr std::string_view kEnding = ".plan.json";
  const std::string& directory = dataset.directory();
  if (!named.empty() || directory.starts_with("http")) return named;
  for (const auto& name : fs.list(directory))
    if (name.ends_with(kEnding)) named.push_back(name.substr(0, name.size() - kEnding.size()));
  return named;
}

void add_verify(Command& data) {
  auto* cmd = data.add_subcommand("verify", "Read every byte of a dataset and compare it with the manifest");
  struct Flags {
    std::string path;
    std::vector<std::string> plans;
    bool json = false;
  };
  auto f = std::make_shared<Flags>();
  cmd->add_option("dataset", f->path, "Directory, s3://, http:// or https://")->required();
  cmd->add_option("--plan", f->plans,
                  "Also this packing plan (default: all that are beside it; not over HTTP)");
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer("Examples:\n  stoker data verify docs.stk\n  stoker data verify s3://bucket/docs.stk");
  cmd->callback([f] {
    io::ObjectFileSystem urls(io::real_file_system(), io::patient_object_store_options());
    const auto dataset = data::Dataset::open(urls, f->path);
    const uint64_t bytes = dataset.total_bytes();
    std::vector<std::string> faults;
    {
      Progress progress("verifying", bytes);
      faults = dataset.verify([&](uint64_t n) { progress.add(n); });
    }
    for (const auto& plan : plans_of(urls, dataset, f->plans)) {
      const auto found = data::verify_pack_plan(urls, dataset, plan);
      faults.insert(faults.end(), found.begin(), found.end());
    }
    if (f->json)
      fmt::print("{}\n", Json{{"version", dataset.hash().hex()}, {"bytes", bytes}, {"faults", faults}}.dump(
                             2, ' ', false, Json::error_handler_t::replace));
    else if (faults.empty())
      fmt::print("{}: sound, {} in all, version {}\n", f->path, human_bytes(static_cast<double>(bytes)),
                 dataset.hash().hex());
    for (const auto& fault : faults) fmt::print(stderr, "{}\n", fault);
    if (!faults.empty())
      fail(ErrorKind::kData, "{}: {} faults. Build it again from its sources, or fetch it again", f->path,
           faults.size());
  });
}

void add_export(Command& data) {
  auto* cmd =
      data.add_subcommand("export", "A split as text again: JSON lines, WebDataset tar or MosaicML MDS");
  struct Flags {
    std::string path, out, to = "jsonl";
    corpus::ExportOptions options;
  };
  auto f = std::make_shared<Flags>();
  cmd->add_option("dataset", f->path, "Directory")->required();
  cmd->add_option("--out", f->out, "File (jsonl, tar) or directory (mds) to make")->required();
  cmd->add_option("--to", f->to, "jsonl, tar or mds")->capture_default_str();
  cmd->add_option("--split", f->options.split, "Split")->capture_default_str();
  cmd->footer("Example:\n  stoker data export docs.stk --to mds --out docs-mds --split held_out");
  cmd->callback([f] {
    io::ObjectFileSystem fs(io::real_file_system(), io::patient_object_store_options());
    f->options.format = corpus::export_format_from_string(f->to);
    const uint64_t n = corpus::export_dataset(fs, data::Dataset::open(fs, f->path), f->out, f->options);
    fmt::print("{}: {} documents\n", f->out, n);
  });
}

Json split_json(const data::SplitRecord& s) {
  return {{"documents", s.documents},
          {"tokens", s.tokens},
          {"text_bytes", s.text_bytes},
          {"shards", s.shards.size()}};
}

void show_document(io::FileSystem& fs, const data::Dataset& dataset, const std::string& split_name,
                   uint64_t number, bool json) {
  const auto& split = dataset.split(split_name);
  const auto place = data::locate_document(dataset, fs, split, number);
  const std::string tokenizer_path = dataset.path_of(dataset.manifest().tokenizer.file);
  const auto tokenizer =
      tokenizer::Tokenizer::from_json(io::read_text(fs, tokenizer_path, uint64_t{1} << 30));
  const auto file = dataset.open_shard(split.shards[place.shard]);
  std::vector<int32_t> tokens(place.tokens);
  file->read(file->document_start(place.in_shard), tokens);
  const std::string text = tokenizer.decode(tokens);
  if (json) {
    fmt::print("{}\n", Json{{"split", split_name},
                            {"document", number},
                            {"shard", split.shards[place.shard].bin.name},
                            {"first_token", place.first_token},
                            {"tokens", tokens},
                            {"text", text},
                            {"text_bytes", place.origin.text_bytes},
                            {"text_hash", place.origin.text_hash.hex()},
                            {"source", place.origin.source},
                            {"record", place.origin.record}}
                           .dump(2, ' ', false, Json::error_handler_t::replace));
    return;
  }
  fmt::print(
      "document    {} of split {}, in {}\ntokens      {} from {} of the split's stream\nfrom        source "
      "{}, record {}\n"
      "text        {} bytes, hash {}\n\n{}\n",
      number, split_name, split.shards[place.shard].bin.name, place.tokens, place.first_token,
      place.origin.source, place.origin.record, place.origin.text_bytes, place.origin.text_hash.hex(), text);
}

void add_show(Command& data) {
  auto* cmd = data.add_subcommand("show", "What a dataset is; one of its documents");
  struct Flags {
    std::string path, split = corpus::kTrainSplit;
    uint64_t document = 0;
    bool json = false;
  };
  auto f = std::make_shared<Flags>();
  cmd->add_option("dataset", f->path, "Directory, s3://, http:// or https://")->required();
  auto* document = cmd->add_option("--document", f->document, "Show document number N of the split, decoded");
  cmd->add_option("--split", f->split, "Split of --document")->capture_default_str();
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer(
      "Examples:\n  stoker data show docs.stk\n  stoker data show docs.stk --document 17 --split held_out");
  cmd->callback([f, document] {
    io::ObjectFileSystem fs(io::real_file_system(), io::patient_object_store_options());
    const auto dataset = data::Dataset::open(fs, f->path);
    if (document->count()) return show_document(fs, dataset, f->split, f->document, f->json);
    const auto& m = dataset.manifest();
    if (f->json) {
      Json splits = Json::object();
      for (const auto& s : m.splits) splits[s.name] = split_json(s);
      fmt::print("{}\n", Json{{"version", dataset.hash().hex()},
                              {"token_type", data::to_string(m.token_type)},
                              {"vocabulary", m.tokenizer.vocabulary},
                              {"eod", m.tokenizer.eod < 0 ? Json(nullptr) : Json(m.tokenizer.eod)},
                              {"bos", m.tokenizer.bos < 0 ? Json(nullptr) : Json(m.tokenizer.bos)},
                              {"source_files", m.source_files},
                              {"settings", Json::parse(m.settings)},
                              {"splits", splits},
                              {"bytes", dataset.total_bytes()}}
                             .dump(2));
      return;
    }
    fmt::print("version     {}\ntokens      {}, vocabulary {}, end of document {}{}\nsources     {} files\n",
               dataset.hash().hex(), data::to_string(m.token_type), m.tokenizer.vocabulary,
               m.tokenizer.eod < 0 ? "none" : std::to_string(m.tokenizer.eod),
               m.tokenizer.bos < 0 ? "" : fmt::format(", begin of document {}", m.tokenizer.bos),
               m.source_files);
    for (const auto& s : m.splits)
      fmt::print("{:<11} {} documents, {} tokens, {} of text, {} shards\n", s.name, s.documents, s.tokens,
                 human_bytes(static_cast<double>(s.text_bytes)), s.shards.size());
    fmt::print("settings    {}\n", m.settings);
  });
}

}  // namespace

void add_data_shards(Command& data_parent) {
  add_prepare(data_parent);
  add_verify(data_parent);
  add_show(data_parent);
  add_export(data_parent);
}

}  // namespace stoker::cli
