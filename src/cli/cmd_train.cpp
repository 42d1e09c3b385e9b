#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/progress.h"
#include "base/threads.h"
#include "cli/command.h"
#include "cli/run_files.h"
#include "cli/worker_team.h"
#include "eval/evaluate.h"
#include "io/object_store.h"
#include "io/retry.h"
#include "train/memory_plan.h"
#include "train/trainer.h"

namespace stoker::cli {
namespace {

struct TrainFlags {
  std::string recipe;
  std::vector<std::string> set, kernels;
  std::optional<int> zero_stage;
  int64_t workers = 1, rank = 0;
  bool dry_run = false, json = false, quiet = false;
  std::string transport = "auto";
  double timeout_s = 8;
  int64_t audit_every = 0, until = 0;
};

// The held-out text that the run is scored on; null where its data has none. Tells the first source's tokenizer, if asked.
std::shared_ptr<data::Loader> held_out(const train::Recipe& r, std::string* tokenizer_json) {
  io::FileSystem& fs = io::real_file_system();
  data::LoaderOptions o;
  o.split = r.eval_split;
  o.sequence_length = r.sequence_length;
  o.mode = r.document_masks ? data::PackingMode::kDocumentMasks : data::PackingMode::kConcatenated;
  o.sequential = true;
  // Datasets may be URLs; a loader opens its own way there.
  io::ObjectFileSystem urls(fs);
  io::RetryPolicy retry;
  retry.give_up_after_s = 600;
  std::string path;
  io::retry_storage(retry, system_clock(), [&] {
    const data::Dataset dataset = data::Dataset::open(urls, r.data.sources[0].path);
    const data::FileRecord& tokenizer = dataset.manifest().tokenizer.file;
    if (tokenizer_json && !tokenizer.name.empty())
      *tokenizer_json = io::read_text(urls, dataset.path_of(tokenizer));
    path = train::eval_dataset(r, urls);
  });
  if (path.empty() && r.eval_split != train::Recipe().eval_split)
    fail(ErrorKind::kUsage,
         "data.eval_split is \"{}\", but no dataset of the recipe has a split of that name", r.eval_split);
  if (path.empty()) return nullptr;
  o.cache_directory = r.data.cache_directory;
  o.cache_bytes = r.data.cache_bytes;
  return std::make_shared<data::Loader>(fs, path, o);
}

// What the run takes of each source. Datasets are looked at (manifests only), so that is said in words where it cannot be done.
struct DataPlan {
  std::unique_ptr<data::Feed> feed;
  std::string problem;
  uint64_t samples = 0;  // of the run; 0: its length is not known yet

  explicit DataPlan(const train::Recipe& r) {
    try {
      feed = std::make_unique<data::Feed>(io::real_file_system(), train::feed_options(r));
      samples = static_cast<uint64_t>(r.steps * r.global_batch);
      train::check_vocabulary(r, *feed);
      static_cast<void>(held_out(r, nullptr));
    } catch (const Error& e) {
      problem = e.what();
    }
  }
  nlohmann::json to_json() const {
    if (!problem.empty()) return {{"problem", problem}};
    const auto& schedule = feed->schedule();
    nlohmann::json phases = nlohmann::json::array(), sources = nlohmann::json::array();
    for (size_t p = 0; p < schedule.phases().size(); ++p) {
      nlohmann::json shares;
      for (size_t s = 0; s < feed->sources(); ++s)
        if (schedule.phases()[p].weights[s]) shares[schedule.sources()[s].name] = schedule.share(p, s);
      phases.push_back({{"first_sample", schedule.phases()[p].first_sample}, {"shares", shares}});
    }
    for (const auto& use : feed->used(0, std::min(samples, feed->end()))) {
      const auto& loader = feed->loader(feed->find(use.name));
      nlohmann::json source{{"name", use.name},
                            {"dataset", loader.manifest_hash().hex()},
                            {"samples_per_epoch", use.samples_per_epoch},
                            {"samples", use.samples},
                            {"epochs", use.epochs()},
                            {"padding", loader.plan() ? loader.plan()->padding() : 0.0}};
      source["plan"] = loader.plan() ? nlohmann::json(loader.options().plan) : nlohmann::json();
      sources.push_back(std::move(source));
    }
    nlohmann::json out{{"sources", sources}, {"phases", phases}, {"end", nullptr}};
    if (feed->end() != data::MixtureSchedule::kForever)
      out["end"] = feed->end(), out["end_reason"] = feed->end_reason();
    return out;
  }
  void print(const train::Recipe& r) const {
    if (!problem.empty()) {
      fmt::print("data        NOT USABLE: {}\n", problem);
      return;
    }
    const auto batch = static_cast<uint64_t>(r.global_batch);
    const auto& schedule = feed->schedule();
    for (const auto& use : feed->used(0, std::min(samples, feed->end()))) {
      const auto& loader = feed->loader(feed->find(use.name));
      fmt::print(
          "data        {}: {} sequences an epoch{}", use.name, use.samples_per_epoch,
          loader.plan() ? fmt::format(" (packed, {:.2f} % empty)", loader.plan()->padding() * 100) : "");
      if (samples) fmt::print("; the run takes {} = {:.3g} epochs", use.samples, use.epochs());
      fmt::print("\n");
    }
    for (size_t p = 0; p < schedule.phases().size() && feed->sources() > 1; ++p) {
      const uint64_t first = schedule.phases()[p].first_sample;
      if (samples && first >= samples) break;
      std::string shares;
      for (size_t s = 0; s < feed->sources(); ++s)
        if (schedule.phases()[p].weights[s])
          shares += fmt::format("{}{} {:.3g} %", shares.empty() ? "" : ", ", schedule.sources()[s].name,
                                schedule.share(p, s) * 100);
      fmt::print("mixture     from step {}{}: {}\n", first / batch,
                 first % batch ? fmt::format(" (sample {})", first) : "", shares);
    }
    if (feed->end() / batch < static_cast<uint64_t>(r.steps))
      fmt::print("data        ENDS after {} of {} steps: {}\n", feed->end() / batch, r.steps,
                 feed->end_reason());
  }
};

void dry_run(const train::Recipe& r, const TrainFlags& f) {
  const DataPlan data(r);
  const train::MemoryPlan plan = train::memory_plan(r, f.workers, f.rank);
  const int64_t per_step = r.global_batch * r.sequence_length;
  const double flops = train_flops_per_token(r.model, r.sequence_length);
  if (f.json) {
    nlohmann::json rows = nlohmann::json::array();
    for (const auto& row : plan.rows) rows.push_back({{"what", row.what}, {"bytes", row.bytes}});
    fmt::print("{}\n", nlohmann::json{{"parameters", parameter_count(r.model)},
                                      {"memory_bytes", plan.total()},
                                      {"memory", rows},
                                      {"steps", r.steps},
                                      {"minutes", r.minutes},
                                      {"tokens_per_step", per_step},
                                      {"tokens", per_step * r.steps},
                                      {"flops_per_token", flops},
                                      {"data", data.to_json()}}
                           .dump(2));
    return;
  }
  fmt::print("model       {} parameters, {} FLOPs a token\n",
             human_count(static_cast<double>(parameter_count(r.model))), human_count(flops));
  fmt::print("batch       {} sequences of {} = {} tokens a step, micro-batches of {}\n", r.global_batch,
             r.sequence_length, per_step, r.micro_batch);
  if (r.steps)
    fmt::print("run         {} steps, {} tokens, {} FLOPs\n", r.steps,
               human_count(static_cast<double>(per_step * r.steps)),
               human_count(flops * static_cast<double>(per_step * r.steps)));
  else fmt::print("run         {} minutes; the steps are counted when it starts\n", r.minutes);
  data.print(r);
  fmt::print("memory      {}\n", human_bytes(static_cast<double>(plan.total())));
  for (const auto& row : plan.rows)
    fmt::print("  {:<30} {:>10}\n", row.what, human_bytes(static_cast<double>(row.bytes)));
}

train::TrainerHooks hooks(const train::Recipe& r, const TrainFlags& f) {
  train::TrainerHooks h;
  h.quiet = f.quiet;
  const auto loader = held_out(r, &h.tokenizer_json);
  if (!loader) return h;
  h.evaluate = [loader, rows = r.micro_batch, windows = r.eval_windows](Scorer& model) {
    const eval::Score s = eval::evaluate(model, *loader, rows, windows);
    return train::Evaluation{s.loss, s.bits_per_byte, s.targets};
  };
  return h;
}

void run(const TrainFlags& f) {
  constexpr std::string_view kTransports[] = {"auto", "shm", "tcp", "gloo"};
  if (std::find(std::begin(kTransports), std::end(kTransports), f.transport) == std::end(kTransports))
    fail(ErrorKind::kUsage, "--transport is '{}': expected one of {}", f.transport,
         fmt::join(kTransports, ", "));
  const train::Recipe recipe = train::load_recipe(f.recipe, f.set);
  if (recipe.threads) set_compute_threads(recipe.threads);
  if (f.dry_run) return dry_run(recipe, f);
  const WorkerTeam workers =
      make_worker_team({recipe.run_dir, recipe.virtual_ranks, f.transport, f.timeout_s});
  train::TrainerHooks h = hooks(recipe, f);
  h.team = workers.team.get();
  h.timeout_s = f.timeout_s;
  h.audit_every = f.audit_every;
  h.until = f.until;
  h.chaos = std::getenv("STOKER_CHAOS") != nullptr;
  io::FaultyFileSystem faulty(io::real_file_system());
  if (h.chaos) h.faulty = &faulty;
  train::RunSummary s;
  try {
    io::FileSystem& fs = h.chaos ? static_cast<io::FileSystem&>(faulty) : io::real_file_system();
    train::Trainer trainer(recipe, std::move(h), fs);
    s = trainer.run();
  } catch (const elastic::Released& e) {
    fmt::print(stderr, "stoker: {}\n", e.what());
    return;
  }
  if (workers.team && workers.team->rank() != 0) return;
  const size_t said = workers.team ? 0 : train::memory_plan(recipe).total();
  if (f.json) {
    nlohmann::json j{{"steps", s.steps},
                     {"loss", s.first_step == s.steps ? nlohmann::json() : nlohmann::json(s.loss)},
                     {"seconds", s.seconds},
                     {"tokens_per_s", s.tokens_per_s},
                     {"mfu", s.mfu},
                     {"peak_bytes", s.peak_bytes},
                     {"checkpoint", s.checkpoint},
                     {"weights_hash", s.weights_hash}};
    if (said) j["memory_bytes"] = said;
    if (s.evaluation)
      j["eval"] = {{"loss", s.evaluation->loss}, {"bits_per_byte", s.evaluation->bits_per_byte}};
    fmt::print("{}\n", j.dump(2));
    return;
  }
  if (s.first_step == s.steps) fmt::print("the run was complete at step {}\n", s.steps);
  else
    fmt::print("{} steps done in {}: loss {:.4f}, {:.0f} tokens/s, MFU {:.0f} %\n", s.steps,
               human_duration(s.seconds), s.loss, s.tokens_per_s, s.mfu * 100);
  if (s.evaluation)
    fmt::print("held-out loss {:.4f}, {:.4f} bits per byte\n", s.evaluation->loss,
               s.evaluation->bits_per_byte);
  if (said)
    fmt::print("memory {} at its peak, {} said beforehand\n", human_bytes(static_cast<double>(s.peak_bytes)),
               human_bytes(static_cast<double>(said)));
  fmt::print("weights {} in {}\n", s.weights_hash, s.checkpoint);
}

Command* add_options(Command& app, TrainFlags& f) {
  auto* cmd =
      app.add_subcommand("train", "Train a model by a recipe; the same command continues an interrupted run");
  cmd->add_option("recipe", f.recipe, "The run as TOML (docs/recipe.md)")->required();
  cmd->add_option("--set", f.set, "Override a key of the recipe: key=value; may be repeated")->one_each();
  cmd->add_option("--kernel", f.kernels, "Force candidates: op=candidate,... (part of the run's identity)")
      ->one_each();
  cmd->add_flag("--dry-run", f.dry_run,
                "Print parameters, memory, steps and what is taken of which data; allocate nothing");
  cmd->add_option("--workers", f.workers,
                  "With --dry-run: memory of one worker when there are so many (default 1)");
  cmd->add_option("--rank", f.rank, "With --dry-run: of which worker (default 0)");
  cmd->add_flag("--json", f.json, "Print the summary as JSON (docs/json.md)");
  cmd->add_option(
      "--zero", f.zero_stage,
      "With several workers: what they shard between them, as layout.zero_stage (docs/recipe.md)");
  cmd->add_option("--transport", f.transport, "With several workers: auto, shm, tcp or gloo");
  cmd->add_option("--timeout", f.timeout_s,
                  "With several workers: seconds that a collective may take beside computing (default 8)")
      ->range(0.5, 3600.0);
  cmd->add_option(
         "--audit", f.audit_every,
         "With several workers: every so many batches each computes its neighbour's gradients again and "
         "compares the bits (default 0: never; 100 costs one percent)")
      ->range(int64_t{0}, int64_t{1} << 40);
  cmd->add_option("--until", f.until, "Stop and save after this step; the schedule stays that of all steps")
      ->range(int64_t{1}, int64_t{1} << 40);
  cmd->add_flag("--quiet", f.quiet, "No progress on stderr");
  cmd->footer(
      "Examples:\n  stoker train recipes/demo.toml\n  stoker train recipes/demo.toml --dry-run\n"
      "  stoker train recipes/demo.toml --set train.steps=100 --set optimizer.learning_rate=1e-3");
  return cmd;
}

// What the options that are short for keys of the recipe set.
void spell_out(TrainFlags& f) {
  for (const auto& k : f.kernels) f.set.push_back("train.kernels=\"" + k + "\"");
  if (f.zero_stage) f.set.push_back(fmt::format("layout.zero_stage={}", *f.zero_stage));
}

}  // namespace

void add_train(Command& app) {
  auto f = std::make_shared<TrainFlags>();
  add_options(app, *f)->callback([f] {
    spell_out(*f);
    run(*f);
  });
}

std::string run_directory_of(const std::vector<std::string>& train_command) {
  TrainFlags f;
  Command program("");
  std::string dir;
  add_options(program, f)->callback([&] {
    spell_out(f);
    dir = train::load_recipe(f.recipe, f.set).run_dir;
  });
  std::vector<std::string> words{"stoker"};
  words.insert(words.end(), train_command.begin(), train_command.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  const int code = program.run(static_cast<int>(argv.size()), argv.data(), "");
  if (dir.empty()) throw ExitWith{code};  // it asked for help
  return dir;
}

}  // namespace stoker::cli
