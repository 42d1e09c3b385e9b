#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/peak_memory.h"
#include "base/progress.h"
#include "cli/command.h"
#include "data/corpus/factory_build.h"
#include "data/corpus/factory_records.h"
#include "data/corpus/factory_report.h"
#include "data/corpus/label_classifier.h"
#include "data/corpus/parquet_reader.h"
#include "io/atomic_write.h"
#include "io/object_store.h"

namespace stoker::cli {
namespace {

using Json = nlohmann::json;

void print_build(const corpus::BuildResult& r, bool json) {
  Json timings = Json::array();
  for (const auto& t : r.timings)
    timings.push_back({{"stage", t.stage}, {"seconds", t.seconds}, {"bytes", t.bytes}});
  Json reasons = Json::array();
  for (const auto& d : r.reasons) reasons.push_back({{"reason", d.reason}, {"documents", d.documents}});
  if (json) {
    fmt::print("{}\n", Json{{"version", r.version},
                            {"directory", r.directory},
                            {"up_to_date", r.up_to_date},
                            {"files", r.files},
                            {"left_out", r.left_out},
                            {"chunks", r.chunks},
                            {"chunks_computed", r.chunks_computed},
                            {"documents_in", r.documents_in},
                            {"documents_out", r.documents_out},
                            {"quarantined", r.quarantined},
                            {"reasons", reasons},
                            {"stored_bytes", r.stored_bytes},
                            {"text_bytes_in", r.text_bytes_in},
                            {"text_bytes_out", r.text_bytes_out},
                            {"tokens", r.tokens},
                            {"pruned_files", r.pruned_files},
                            {"pruned_bytes", r.pruned_bytes},
                            {"seconds", r.seconds},
                            {"peak_bytes", peak_resident_bytes()},
                            {"parquet", corpus::parquet_support()},
                            {"timings", timings}}
                           .dump(2, ' ', false, Json::error_handler_t::replace));
    return;
  }
  fmt::print("{} {}\n", r.directory, r.up_to_date ? "is up to date" : "written");
  fmt::print("files       {} ({} left out), {} stored\n", r.files, r.left_out,
             human_bytes(static_cast<double>(r.stored_bytes)));
  fmt::print("documents   {} in, {} out, {} in quarantine\n", r.documents_in, r.documents_out, r.quarantined);
  constexpr size_t kShown = 8;
  for (size_t i = 0; i < std::min(kShown, r.reasons.size()); ++i)
    fmt::print("            {:>10}  {}\n", r.reasons[i].documents, r.reasons[i].reason);
  if (r.reasons.size() > kShown)
    fmt::print("            and {} more reasons: stoker data report {}\n", r.reasons.size() - kShown,
               r.directory);
  fmt::print("text        {} in, {} out\n", human_bytes(static_cast<double>(r.text_bytes_in)),
             human_bytes(static_cast<double>(r.text_bytes_out)));
  if (r.tokens) fmt::print("tokens      {}\n", r.tokens);
  fmt::print("chunks      {}, {} of them computed now\n", r.chunks, r.chunks_computed);
  if (r.pruned_files)
    fmt::print("pruned      {} files, {}\n", r.pruned_files,
               human_bytes(static_cast<double>(r.pruned_bytes)));
  fmt::print("took        {:.1f} s, at most {} resident\n", r.seconds,
             human_bytes(static_cast<double>(peak_resident_bytes())));
  for (const auto& t : r.timings)
    if (t.bytes)
      fmt::print("{:<16}{:9.2f} s {:9.1f} MB/s per core\n", t.stage, t.seconds,
                 static_cast<double>(t.bytes) / 1e6 / t.seconds);
    else fmt::print("{:<16}{:9.2f} s\n", t.stage, t.seconds);
}

void run_build(const std::string& path, bool json, int threads, bool prune) {
  auto& fs = io::real_file_system();
  auto recipe =
      corpus::parse_recipe(io::read_text(fs, path), path, std::filesystem::path(path).parent_path().string());
  if (threads > 0) recipe.threads = threads;
  io::ObjectFileSystem urls(
      fs, io::patient_object_store_options());  // sources may be s3://, http:// and https://
  const auto result = corpus::build_corpus(urls, recipe, prune);
  print_build(result, json);
  if (result.documents_out == 0)
    fmt::print(stderr, "nothing was kept: {}/report.html shows samples of what was dropped and why\n",
               result.directory);
}

// A version's directory, or the folder of versions with its pointer to the newest.
std::string version_directory(io::FileSystem& fs, const std::string& path) {
  const std::string pointer = io::join(path, "latest");
  if (!fs.exists(pointer)) {
    if (!fs.exists(io::join(path, "report.json")))
      fail(ErrorKind::kUsage,
           "{}: expected the output of a build, or one version in it (there is no 'latest' and no "
           "'report.json'): stoker "
           "data build RECIPE makes one",
           path);
    return path;
  }
  std::string version = io::read_text(fs, pointer, 256);
  while (!version.empty() && (version.back() == '\n' || version.back() == ' ')) version.pop_back();
  return io::join(path, version);
}

void run_report(const std::string& path, bool json, const std::string& html) {
  auto& fs = io::real_file_system();
  const std::string directory = version_directory(fs, path);
  const std::string report = io::read_text(fs, io::join(directory, "report.json"));
  const std::string page = corpus::report_page(report);
  if (!html.empty()) io::write_file_atomic(fs, html, page);
  if (json) {
    fmt::print("{}", report);
    return;
  }
  const Json r = Json::parse(report);
  fmt::print("version     {}\n", r.at("version").get<std::string>());
  fmt::print("documents   {} in, {} out, {} in quarantine\n", r.at("documents_in").get<uint64_t>(),
             r.at("documents_out").get<uint64_t>(), r.at("quarantined").get<uint64_t>());
  for (const auto& reason : r.at("reasons"))
    fmt::print("{:>10}  {}\n", reason.at("documents").get<uint64_t>(),
               reason.at("reason").get<std::string>());
  fmt::print("page        {}\n", html.empty() ? io::join(directory, "report.html") : html);
}

void run_label_train(const std::string& input, const std::string& out, const corpus::LabelTraining& options) {
  auto& fs = io::real_file_system();
  const std::string text = io::read_text(fs, input, uint64_t{8} << 30);
  std::vector<corpus::LabelledText> examples;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const auto json = Json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("text") || !json["text"].is_string() || !json.contains("label") ||
        !json["label"].is_string())
      fail(ErrorKind::kData, "{}:{}: expected {{\"text\": \"...\", \"label\": \"...\"}}", input, number);
    examples.push_back({json["text"].get<std::string>(), json["label"].get<std::string>()});
  }
  const auto model = corpus::LabelClassifier::train(examples, options);
  io::write_file_atomic(fs, out, model.encode());
  fmt::print("{}: {} examples, labels {}; {:.1f} % right on {} held out\n", out, examples.size(),
             fmt::join(model.labels(), ", "), model.held_out_accuracy() * 100, model.held_out_examples());
}

}  // namespace

void add_data_build(Command& data) {
  struct Flags {
    std::string recipe, directory, html, input, out;
    bool json = false, prune = false;
    int threads = 0;
    corpus::LabelTraining training;
  };
  const auto flags = std::make_shared<Flags>();
  auto* build = data.add_subcommand("build", "Clean, label and deduplicate sources by a recipe");
  build->add_option("recipe", flags->recipe, "recipe.toml (docs/data-factory.md)")->required();
  build->add_option("--threads", flags->threads, "threads; default: as the recipe says, else all")
      ->positive();
  build->add_flag("--prune", flags->prune,
                  "then remove from the work directory what this build did not need: columns of stages that "
                  "changed, chunks of files "
                  "that went. Not where other recipes share it");
  build->add_flag("--json", flags->json, "print the counts and timings as JSON");
  build->footer(
      "A small recipe.toml:\n"
      "  output = \"out/docs\"\n"
      "  stages = [{use = \"unicode\"}, {use = \"exact\"}, {use = \"near\"}]\n"
      "  [[source]]\n"
      "  paths = [\"docs\", \"more/*.html.gz\"]\n\n"
      "Example:\n  stoker data build recipe.toml\nKilled or changed, it goes on with what is already "
      "computed. Parquet: " +
      corpus::parquet_support() + ".");
  build->callback([flags] { run_build(flags->recipe, flags->json, flags->threads, flags->prune); });

  auto* report = data.add_subcommand("report", "What a build kept and dropped, and why");
  report->add_option("directory", flags->directory, "the build's output, or one version in it")->required();
  report->add_flag("--json", flags->json, "print the report as JSON");
  report->add_option("--html", flags->html, "also write the page here");
  report->footer("Example:\n  stoker data report out/docs --html report.html");
  report->callback([flags] { run_report(flags->directory, flags->json, flags->html); });

  auto* label = data.add_subcommand("label", "Label documents with a classifier of your own");
  label->footer("Example:\n  stoker data label train examples.jsonl -o topic.labels");
  label->require_subcommand(1, 1);
  auto* train = label->add_subcommand("train", "Train a linear text classifier on examples");
  train->add_option("examples", flags->input, "JSON lines {\"text\", \"label\"}")->required();
  train->add_option("-o,--out", flags->out, "the classifier's file")->required();
  train->add_option("--epochs", flags->training.epochs, "passes over the examples")->positive();
  train->add_option("--held-out", flags->training.held_out, "share that only measures")->range(0.0, 0.9);
  train->footer("Example:\n  stoker data label train examples.jsonl -o topic.labels");
  train->callback([flags] { run_label_train(flags->input, flags->out, flags->training); });
}

}  // namespace stoker::cli
