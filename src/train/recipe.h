// train/recipe.h
// A complete run as one TOML file: model, data, batch, optimizer, evaluation, checkpoints, policies. Every key has a default but
// data.path and the model; docs/recipe.md lists them.
// Overrides   "--set optimizer.learning_rate=3e-4": the value is TOML; a bare word is taken as a string
// Errors      Usage, naming file, key, what was found and what is expected; an unknown key names the nearest known one
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/loader/feed.h"
#include "io/file_system.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "spec/model_spec.h"
#include "spec/run_spec.h"

namespace stoker::train {

// A change of the mixture, as the recipe gives it: in batches or in tokens (cells of rows, padding included).
struct DataPhase {
  int64_t from_step = 0, from_tokens = 0;  // one of them; the other is 0
  std::map<std::string, double> weights;
};

enum class Reaction { kSkip, kStop, kRollback };

struct Recipe {
  std::string run_dir = "run";
  uint64_t seed = 1;
  int threads = 0;  // 0: all

  ModelSpec model;
  std::string init_from;  // Hugging Face directory; empty: random
  double init_std = 0.02;

  data::FeedOptions data;  // sources, phases, packing; complete but for what the batch decides (feed_options)
  std::string train_split = "train", eval_split = "held_out", eval_path;
  std::vector<DataPhase> phases;
  int64_t sequence_length = 512;
  bool document_masks = true;

  int64_t steps = 0;  // one of steps and minutes
  double minutes =
      0;  // resolved to steps by timing the first ones; the resolved recipe is kept in the run directory
  int64_t global_batch = 8, micro_batch = 8;  // sequences
  int virtual_ranks = 1;
  LayoutSpec
      layout;  // its data axis is whatever the workers at hand make it; not part of the identity but for tensor
  Precision precision = Precision::kBf16;
  Recompute recompute = Recompute::kNone;

  optim::OptimizerSettings optimizer;
  optim::Schedule schedule;
  double warmup_ratio = 0.02, decay_ratio = 0.2;  // of steps
  double clip_norm = 1;                           // 0: off

  int64_t eval_every = 0, eval_windows = 64;  // 0: only at the end; windows of sequence_length
  int64_t checkpoint_every = 100;
  int keep_last = 3;

  Reaction on_nan = Reaction::kStop, on_spike = Reaction::kSkip;
  double spike_sigma = 6;  // standard deviations above the mean of the last spike_window losses; 0: off
  int64_t spike_window = 64;
  int64_t max_skips = 10;  // in a row

  std::string kernels;  // ops::Context::force

  // The keys that decide the weights, as canonical JSON: a resume must have the same. Paths, logging and evaluation are not in it.
  std::string identity() const;
};

// What the trainer is fed: recipe.data with phases in samples, seed, length and masks.
data::FeedOptions feed_options(const Recipe& recipe);
// Where the evaluation reads: data.eval_path, or the first source that has the split. Empty: nowhere.
std::string eval_dataset(const Recipe& recipe, io::FileSystem& fs);

// `name` is for messages. model.config and model.init_from are read through `fs`; nothing else touches storage.
Recipe parse_recipe(const std::string& text, const std::string& name,
                    const std::vector<std::string>& overrides, io::FileSystem& fs = io::real_file_system());
Recipe load_recipe(const std::string& path, const std::vector<std::string>& overrides);

}  // namespace stoker::train
