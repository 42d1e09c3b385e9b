#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/progress.h"
#include "cli/command.h"
#include "data/loader/feed.h"
#include "data/loader/lineage.h"
#include "data/shard/dataset.h"
#include "data/shard/dataset_diff.h"
#include "data/shard/pack_plan.h"
#include "io/object_store.h"
#include "train/recipe.h"

namespace stoker::cli {
namespace {
using Json = nlohmann::json;

std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace); }

struct TraceFlags {
  std::string path, split = "train", document, plan, recipe, source;
  std::vector<std::string> set;
  uint64_t token = 0, sample = 0, step = 0, seed = 0, most = 20;
  std::optional<uint64_t> epoch;
  int64_t length = 0, batch = 0;
  bool json = false;
};

Json document_json(const data::Dataset& dataset, io::FileSystem& fs, const data::DocumentPart& part) {
  const auto source = data::source_of(dataset, fs, part.place.origin);
  return {{"document", part.document},
          {"source", source.name},
          {"input", source.input},
          {"record", part.place.origin.record},
          {"text_hash", part.place.origin.text_hash.hex()},
          {"text_bytes", part.place.origin.text_bytes},
          {"first_token", part.place.first_token},
          {"tokens", part.place.tokens},
          {"part_first", part.first},
          {"part_tokens", part.count}};
}

// On one line, whatever is in it.
std::string shown(const std::string& name) {
  if (std::none_of(name.begin(), name.end(), [](unsigned char c) { return c < 0x20; })) return name;
  const std::string quoted = Json(name).dump(-1, ' ', false, Json::error_handler_t::replace);
  return quoted.substr(1, quoted.size() - 2);
}

void print_document(const Json& d) {
  fmt::print(
      "document    {} (tokens {} to {} of the stream)\n  from      {}{}, record {}\n  text      {} bytes, "
      "hash "
      "{}\n",
      d["document"].get<uint64_t>(), d["first_token"].get<uint64_t>(),
      d["first_token"].get<uint64_t>() + d["tokens"].get<uint64_t>() - 1,
      d.contains("dataset") ? d["dataset"].get<std::string>() + ": " : "",
      shown(d["source"].get<std::string>()), d["record"].get<uint64_t>(), d["text_bytes"].get<uint64_t>(),
      d["text_hash"].get<std::string>());
}

// What was trained on: one dataset with the flags' settings, or all of a recipe.
struct TracedRun {
  std::unique_ptr<data::Feed> feed;
  uint64_t batch = 0;    // samples a step; 0: not known
  uint64_t samples = 0;  // of the whole run; 0: not known

  explicit TracedRun(const TraceFlags& f) {
    data::FeedOptions options;
    if (!f.recipe.empty()) {
      const auto recipe = train::load_recipe(f.recipe, f.set);
      options = train::feed_options(recipe);
      batch = static_cast<uint64_t>(recipe.global_batch);
      samples = batch * static_cast<uint64_t>(recipe.steps);
    } else {
      if (f.length < 1) return;
      options.sequence_length = f.length;
      options.seed = f.seed;
      batch = static_cast<uint64_t>(std::max<int64_t>(0, f.batch));
      data::FeedSource only;
      only.path = f.path;
      only.split = f.split;
      only.plan = f.plan;
      options.sources.push_back(only);
    }
    feed = std::make_unique<data::Feed>(io::real_file_system(), options);
  }
  bool mixed() const { return feed && feed->sources() > 1; }
};

// Samples and, where the batch size is known, steps that predict a range of a source's stream: in one epoch, or in all of a run.
Json shown_in(const TracedRun& run, size_t source, const TraceFlags& f, uint64_t first, uint64_t count) {
  const auto& loader = run.feed->loader(source);
  const auto& schedule = run.feed->schedule();
  const auto rows = loader.rows_that_predict(first, count);
  uint64_t from = f.epoch.value_or(0), to = from + 1;
  if (!f.epoch && run.samples)
    to = (schedule.count(source, run.samples) + loader.samples_per_epoch() - 1) / loader.samples_per_epoch();
  Json samples = Json::array(), steps = Json::array();
  std::set<uint64_t> found, step_set;
  for (uint64_t epoch = from; epoch < to; ++epoch)
    for (const uint64_t row : rows) {
      const uint64_t sample = schedule.sample_of(source, loader.sample_of(epoch, row));
      if (sample == data::MixtureSchedule::kForever || (run.samples && sample >= run.samples)) continue;
      found.insert(sample);
      if (run.batch) step_set.insert(sample / run.batch);
    }
  for (const uint64_t s : found) samples.push_back(s);
  for (const uint64_t s : step_set) steps.push_back(s);
  Json out{{"epoch", from}, {"epochs", to - from}, {"samples", samples}};
  if (run.mixed()) out["dataset"] = schedule.sources()[source].name;
  if (run.batch) out["steps"] = steps;
  return out;
}

void print_shown(const Json& shown) {
  auto list = [](const Json& numbers) {
    std::string out;
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (i == 12) return out + fmt::format(" ... ({} in all)", numbers.size());
      out += (i ? " " : "") + numbers[i].dump();
    }
    return out.empty() ? std::string("none") : out;
  };
  const auto first = shown["epoch"].get<uint64_t>(), epochs = shown["epochs"].get<uint64_t>();
  fmt::print("seen in     {}: samples {}\n",
             epochs == 1 ? fmt::format("epoch {}", first)
                         : fmt::format("epochs {} to {}", first, first + epochs - 1),
             list(shown["samples"]));
  if (shown.contains("steps")) fmt::print("            steps {}\n", list(shown["steps"]));
}

void trace(const TraceFlags& f, bool by_token, bool by_document, bool by_sample, bool by_step) {
  if (by_token + by_document + by_sample + by_step != 1)
    fail(ErrorKind::kUsage, "trace: expected one of --token, --doc, --sample and --step");
  if (f.path.empty() == f.recipe.empty())
    fail(ErrorKind::kUsage, "trace: expected a dataset, or --recipe for a run and all its datasets");
  if ((by_sample || by_step) && f.recipe.empty() && f.length < 1)
    fail(ErrorKind::kUsage,
         "trace: --sample and --step need --recipe, or --sequence-length (and --seed) of the run");
  if (by_step && f.recipe.empty() && f.batch < 1)
    fail(ErrorKind::kUsage, "trace: --step needs --batch, the samples per step of the run");
  const TracedRun run(f);
  size_t source = 0;
  if (run.mixed() && (by_token || by_document)) {
    if (f.source.empty())
      fail(ErrorKind::kUsage, "trace: {} mixes {} datasets: say which one with --source", f.recipe,
           run.feed->sources());
    source = run.feed->find(f.source);
  }
  io::ObjectFileSystem urls(io::real_file_system(), io::patient_object_store_options());
  std::optional<data::Dataset> opened;
  if (!run.feed) opened = data::Dataset::open(urls, f.path);
  Json result{{"documents", Json::array()}};
  auto add = [&](const data::Dataset& dataset, const std::vector<data::DocumentPart>& parts, size_t from) {
    for (const auto& p : parts) {
      Json d = document_json(dataset, dataset.file_system(), p);
      if (run.mixed()) d["dataset"] = run.feed->schedule().sources()[from].name;
      result["documents"].push_back(std::move(d));
    }
  };
  if (by_token || by_document) {
    const data::Dataset& dataset = run.feed ? run.feed->loader(source).dataset() : *opened;
    const std::string split_name = run.feed ? run.feed->loader(source).options().split : f.split;
    const auto& split = dataset.split(split_name);
    result["version"] = dataset.hash().hex();
    result["split"] = split_name;
    auto& fs = dataset.file_system();
    if (by_token) {
      add(dataset, data::documents_at(dataset, fs, split, f.token, 1), source);
      if (run.feed) result["seen"] = shown_in(run, source, f, f.token, 1);
    } else {
      std::vector<uint64_t> numbers;
      if (f.document.size() < 12 && f.document.find_first_not_of("0123456789") == std::string::npos)
        numbers.push_back(std::stoull(f.document));
      else numbers = data::documents_by_hash(dataset, fs, split, f.document);
      if (numbers.empty())
        fail(ErrorKind::kUsage, "split {} has no document whose text hash begins with {}", split_name,
             f.document);
      Json seen = Json::array();
      for (const uint64_t n : numbers) {
        const auto place = data::locate_document(dataset, fs, split, n);
        add(dataset, {{n, place, 0, place.tokens}}, source);
        if (run.feed) seen.push_back(shown_in(run, source, f, place.first_token, place.tokens));
      }
      if (run.feed) result["seen"] = seen.size() == 1 ? seen[0] : seen;
    }
  } else {
    const uint64_t rows = by_step ? run.batch : 1, first = by_step ? f.step * rows : f.sample;
    if (first + rows > run.feed->end())
      fail(ErrorKind::kUsage, "trace: the data ends at sample {}: {}", run.feed->end(),
           run.feed->end_reason());
    result["version"] = run.feed->manifest_hash().hex();
    Json samples = Json::array();
    for (uint64_t s = first; s < first + rows; ++s) {
      const auto pick = run.feed->schedule().pick(s);
      const auto& loader = run.feed->loader(pick.source);
      const uint64_t row = loader.window_of(pick.number);
      samples.push_back({{"sample", s},
                         {"dataset", run.feed->schedule().sources()[pick.source].name},
                         {"number", pick.number},
                         {"epoch", pick.number / loader.samples_per_epoch()},
                         {"row", row}});
      const auto& dataset = loader.dataset();
      for (const auto& range : loader.predicted_by(row))
        add(dataset,
            data::documents_at(dataset, dataset.file_system(), dataset.split(loader.options().split),
                               range.first, range.count),
            pick.source);
    }
    result["samples"] = std::move(samples);
  }
  if (f.json) {
    fmt::print("{}\n", text_of(result));
    return;
  }
  const auto& documents = result["documents"];
  for (size_t i = 0; i < documents.size(); ++i) {
    if (i == f.most) {
      fmt::print("... {} documents in all (--json lists them)\n", documents.size());
      break;
    }
    print_document(documents[i]);
  }
  if (result.contains("seen")) {
    if (result["seen"].is_array())
      for (const auto& s : result["seen"]) print_shown(s);
    else print_shown(result["seen"]);
  }
}

void add_trace(Command& data) {
  auto* cmd = data.add_subcommand("trace",
                                  "From a token, sample or step to its documents, and from a token or "
                                  "document to the steps that show it");
  auto f = std::make_shared<TraceFlags>();
  cmd->add_option("dataset", f->path, "Directory, s3://, http:// or https://");
  auto* token = cmd->add_option("--token", f->token, "Position in the split's token stream");
  auto* document =
      cmd->add_option("--doc", f->document, "Document number, or the beginning of its text hash");
  auto* sample = cmd->add_option("--sample", f->sample, "Global sample number of a run");
  auto* step = cmd->add_option("--step", f->step, "Step of a run, counted from 0");
  cmd->add_option(
      "--recipe", f->recipe,
      "The run's recipe: its datasets, mixture, packing, seed and batch; the whole run is searched");
  cmd->add_option("--set", f->set, "Override a key of the recipe, as the run did")->one_each();
  cmd->add_option("--source", f->source, "Which dataset of the recipe's mixture --token and --doc mean");
  cmd->add_option("--split", f->split, "Split")->capture_default_str();
  cmd->add_option("--sequence-length", f->length, "Of the run");
  cmd->add_option("--plan", f->plan, "Packing plan of the run");
  cmd->add_option("--seed", f->seed, "Data seed of the run")->capture_default_str();
  cmd->add_option("--batch", f->batch, "Samples per step of the run");
  cmd->add_option("--epoch", f->epoch, "Only this epoch, from 0 (default: the recipe's whole run, else 0)");
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer(
      "Examples:\n"
      "  stoker data trace docs.stk --token 123456\n"
      "  stoker data trace docs.stk --doc 17 --sequence-length 1024 --batch 64\n"
      "  stoker data trace --recipe run.toml --source web --doc 4f1c22\n"
      "  stoker data trace --recipe run.toml --step 340");
  cmd->callback([=] { trace(*f, token->count(), document->count(), sample->count(), step->count()); });
}

void add_diff(Command& data) {
  auto* cmd = data.add_subcommand("diff", "What changed between two datasets");
  struct Flags {
    std::string before, after;
    bool json = false;
  };
  auto f = std::make_shared<Flags>();
  cmd->add_option("before", f->before, "Directory")->required();
  cmd->add_option("after", f->after, "Directory")->required();
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer("Example:\n  stoker data diff docs-1.stk docs-2.stk");
  cmd->callback([f] {
    io::ObjectFileSystem fs(io::real_file_system(), io::patient_object_store_options());
    const auto before = data::Dataset::open(fs, f->before), after = data::Dataset::open(fs, f->after);
    const auto d = data::diff_datasets(before, after, fs);
    if (f->json) {
      Json splits = Json::object();
      for (const auto& [name, s] : d.splits)
        splits[name] = {{"kept", s.kept},
                        {"added", s.added},
                        {"removed", s.removed},
                        {"added_bytes", s.added_bytes},
                        {"removed_bytes", s.removed_bytes}};
      fmt::print("{}\n", text_of({{"same", d.same},
                                  {"before", before.hash().hex()},
                                  {"after", after.hash().hex()},
                                  {"settings", d.settings},
                                  {"tokenizer_changed", d.tokenizer_changed},
                                  {"token_type_changed", d.token_type_changed},
                                  {"sources_added", d.sources_added},
                                  {"sources_removed", d.sources_removed},
                                  {"sources_changed", d.sources_changed},
                                  {"splits", splits}}));
      return;
    }
    if (d.same) {
      fmt::print("the same version, {}\n", before.hash().hex());
      return;
    }
    fmt::print("before      {}\nafter       {}\n", before.hash().hex(), after.hash().hex());
    for (const auto& s : d.settings) fmt::print("setting     {}\n", s);
    if (d.tokenizer_changed) fmt::print("tokenizer   another one\n");
    auto list = [](const char* what, const std::vector<std::string>& names) {
      for (size_t i = 0; i < names.size(); ++i) {
        if (i == 10) {
          fmt::print("{:<11} ... {} in all (--json lists them)\n", what, names.size());
          break;
        }
        fmt::print("{:<11} {}\n", what, names[i]);
      }
    };
    list("new source", d.sources_added);
    list("gone", d.sources_removed);
    list("changed", d.sources_changed);
    for (const auto& [name, s] : d.splits)
      fmt::print("{:<11} {} documents kept, {} added ({}), {} removed ({})\n", name, s.kept, s.added,
                 human_bytes(static_cast<double>(s.added_bytes)), s.removed,
                 human_bytes(static_cast<double>(s.removed_bytes)));
  });
}

void add_gc(Command& data) {
  auto* cmd = data.add_subcommand("gc", "Remove from a staging cache what the given datasets do not need");
  struct Flags {
    std::string cache;
    std::vector<std::string> keep;
    bool dry_run = false, json = false;
  };
  auto f = std::make_shared<Flags>();
  cmd->add_option("cache", f->cache, "Cache directory (STOKER_CACHE)")->required();
  cmd->add_option("--keep", f->keep, "Datasets (directories or URLs) whose blocks stay");
  cmd->add_flag("--dry-run", f->dry_run, "Only say what would go");
  cmd->add_flag("--json", f->json, "Print JSON (docs/json.md)");
  cmd->footer("Example:\n  stoker data gc ~/.cache/stoker --keep s3://bucket/docs.stk");
  cmd->callback([f] {
    auto& fs = io::real_file_system();
    io::ObjectFileSystem urls(fs, io::patient_object_store_options());
    std::set<std::string> needed;
    for (const auto& path : f->keep) {
      const auto dataset = data::Dataset::open(urls, path);
      for (const auto& split : dataset.manifest().splits)
        for (const auto& shard : split.shards)
          for (const auto* file : {&shard.bin, &shard.idx, &shard.sums}) needed.insert(file->hash.hex());
      if (dataset.directory().starts_with("http"))
        continue;  // no listing: its packing plans are fetched again
      for (const auto& name : urls.list(dataset.directory()))
        if (name.ends_with(".plan.json")) {
          const std::string plan_file = io::join(dataset.directory(), name);
          const auto plan =
              data::PackPlanManifest::parse(io::read_text(urls, plan_file, uint64_t{1} << 30), plan_file);
          for (const auto& shard : plan.shards) needed.insert(shard.file.hash.hex());
        }
    }
    uint64_t removed = 0, removed_bytes = 0, kept = 0;
    for (const auto& name : fs.list(f->cache)) {
      // Only names that staging gives; anything else in the directory is somebody else's.
      const bool ours =
          name.size() >= 36 && name.find_first_not_of("0123456789abcdef") == 32 &&
          (name.substr(32) == ".idx" || (name[32] == '-' && name.find(".blk") != std::string::npos));
      if (!ours) continue;
      if (needed.count(name.substr(0, 32)) && name.find(".tmp-") == std::string::npos) {
        ++kept;
        continue;
      }
      const std::string path = io::join(f->cache, name);
      ++removed;
      removed_bytes += fs.info(path).size;
      if (!f->dry_run) fs.remove(path);
    }
    if (f->json)
      fmt::print("{}\n", text_of({{"removed_files", removed},
                                  {"removed_bytes", removed_bytes},
                                  {"kept_files", kept},
                                  {"dry_run", f->dry_run}}));
    else
      fmt::print("{} {} files, {}; {} stay\n", f->dry_run ? "would remove" : "removed", removed,
                 human_bytes(static_cast<double>(removed_bytes)), kept);
  });
}

}  // namespace

void add_data_lineage(Command& data_parent) {
  add_trace(data_parent);
  add_diff(data_parent);
  add_gc(data_parent);
}

}  // namespace stoker::cli
