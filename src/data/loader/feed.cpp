#include "data/loader/feed.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "base/random.h"
#include "data/loader/feed_description.h"
#include "data/shard/strict_json.h"

namespace stoker::data {
namespace {
constexpr double kWeightUnit = 1e6;  // weights are kept in millionths
constexpr double kMostWeight = 1e6;

uint64_t whole_weight(double weight, const std::string& name) {
  if (!(weight >= 0 && weight <= kMostWeight))
    fail(ErrorKind::kUsage, "source {}: weight is {}: expected 0 to {}", name, weight, kMostWeight);
  const auto whole = static_cast<uint64_t>(std::llround(weight * kWeightUnit));
  if (whole == 0 && weight > 0)
    fail(ErrorKind::kUsage, "source {}: weight is {}: expected 0, or at least {}", name, weight,
         1 / kWeightUnit);
  return whole;
}

Loader open_source(io::FileSystem& fs, const FeedOptions& options, const FeedSource& source) {
  LoaderOptions o;
  o.split = source.split;
  o.sequence_length = options.sequence_length;
  o.seed = source_seed(options.seed, source.name);
  o.mode = options.mode;
  o.cache_directory = options.cache_directory;
  o.cache_bytes = std::max<uint64_t>(1, options.cache_bytes / options.sources.size());
  o.shuffle_rows = options.shuffle_rows;
  o.plan = source.plan;
  if (o.plan.empty() && options.best_fit)
    o.plan = default_plan_name(source.split, static_cast<uint64_t>(std::max<int64_t>(0, o.sequence_length)));
  return Loader(fs, source.path, std::move(o));
}

std::vector<FeedSource> by_name(std::vector<FeedSource> sources) {
  if (sources.empty()) fail(ErrorKind::kUsage, "a run needs at least one data source");
  std::sort(sources.begin(), sources.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (size_t i = 1; i < sources.size(); ++i)
    if (sources[i].name == sources[i - 1].name)
      fail(ErrorKind::kUsage, "two data sources are named \"{}\": each needs a name of its own",
           sources[i].name);
  return sources;
}

// How a source's rows are ordered and cut: together with its data this decides what its sample k is.
SourceIdentity identity_of(const std::string& name, const Loader& loader) {
  const auto& o = loader.options();
  SourceIdentity id;
  id.name = name;
  id.dataset = loader.manifest_hash().hex();
  id.split = o.split;
  id.plan = loader.plan() ? loader.plan()->hash().hex() : "";
  id.samples_per_epoch = loader.samples_per_epoch();
  id.shuffle_rows = o.shuffle_rows;
  id.seed = o.seed;
  return id;
}
}  // namespace

bool is_source_name(const std::string& name) { return is_plain_name(name); }

uint64_t source_seed(uint64_t seed, const std::string& name) {
  return name == "data" ? seed : random_u64({seed, hash64(name)}, 0);
}

Feed::Feed(io::FileSystem& fs, const FeedOptions& options) {
  FeedOptions sorted = options;
  sorted.sources = by_name(options.sources);
  for (const auto& source : sorted.sources) loaders_.push_back(open_source(fs, sorted, source));
  join(sorted);
}

Feed::Feed(std::vector<Loader> loaders, const FeedOptions& options) : loaders_(std::move(loaders)) {
  STOKER_CHECK(loaders_.size() == options.sources.size());
  const auto sorted = by_name(options.sources);
  for (size_t i = 0; i < sorted.size(); ++i)
    STOKER_CHECK(sorted[i].name == options.sources[i].name, "sources in the order of their names");
  join(options);
}

void Feed::join(const FeedOptions& options) {
  const auto& first = loaders_[0].manifest().tokenizer;
  std::vector<MixtureSource> sources;
  MixturePhase start;
  size_t weighted = 0;
  for (size_t i = 0; i < loaders_.size(); ++i) {
    const FeedSource& source = options.sources[i];
    const auto& tokenizer = loaders_[i].manifest().tokenizer;
    if (tokenizer.file.hash != first.file.hash || tokenizer.eod != first.eod || tokenizer.bos != first.bos)
      fail(ErrorKind::kUsage,
           "sources {} and {} were made with different tokenizers: make them with the same tokenizer.json "
           "(stoker data prepare --tokenizer)",
           options.sources[0].name, source.name);
    names_.push_back(source.name);
    MixtureSource s{source.name, loaders_[i].samples_per_epoch(), UINT64_MAX, source.drop_at_max};
    if (source.max_epochs > 0) {
      const double limit = source.max_epochs * static_cast<double>(s.samples_per_epoch);
      s.limit = limit < 9e18 ? static_cast<uint64_t>(limit) : UINT64_MAX;
      if (s.limit == 0)
        fail(ErrorKind::kUsage, "source {}: {} epochs of {} samples are less than one sample", source.name,
             source.max_epochs, s.samples_per_epoch);
    }
    sources.push_back(std::move(s));
    weighted += source.weight.has_value();
  }
  if (weighted != 0 && weighted != loaders_.size())
    fail(ErrorKind::kUsage,
         "{} of {} data sources have a weight: give one to all, or to none (then they count by their size)",
         weighted, loaders_.size());
  for (size_t i = 0; i < sources.size(); ++i) {
    uint64_t weight = sources[i].samples_per_epoch;
    if (weighted) weight = whole_weight(*options.sources[i].weight, sources[i].name);
    start.weights.push_back(weight);
  }
  // By size there may be more samples than a weight can count; the share stays to one part in a million and better.
  while (*std::max_element(start.weights.begin(), start.weights.end()) > MixtureSchedule::kMostWeight)
    for (uint64_t& w : start.weights) w = (w + 1) / 2;
  std::vector<MixturePhase> phases{start};
  for (const FeedPhase& phase : options.phases) {
    MixturePhase p{phase.first_sample, std::vector<uint64_t>(sources.size(), 0)};
    for (const auto& [name, weight] : phase.weights) p.weights[find(name)] = whole_weight(weight, name);
    if (std::all_of(p.weights.begin(), p.weights.end(), [](uint64_t w) { return w == 0; }))
      fail(ErrorKind::kUsage, "the data phase from sample {} gives no source a weight", phase.first_sample);
    phases.push_back(std::move(p));
  }
  schedule_ = std::make_unique<MixtureSchedule>(std::move(sources), phases);
}

size_t Feed::find(const std::string& name) const {
  const auto at = std::lower_bound(names_.begin(), names_.end(), name);
  if (at != names_.end() && *at == name) return static_cast<size_t>(at - names_.begin());
  fail(ErrorKind::kUsage, "there is no data source \"{}\": there is {}", name, fmt::join(names_, ", "));
}

void Feed::fill(uint64_t first_sample, int64_t rows, Batch& batch) const {
  STOKER_CHECK(rows >= 0);
  const uint64_t stop = checked_add(first_sample, static_cast<uint64_t>(rows), "sample number");
  if (stop > end())
    fail(ErrorKind::kUsage, "sample {} is asked for, but the data ends at {}: {}", stop - 1, end(),
         end_reason());
  batch.shape(rows, loaders_[0].options().sequence_length);
  for (int64_t row = 0; row < rows; ++row) {
    const auto pick = schedule_->pick(first_sample + static_cast<uint64_t>(row));
    loaders_[pick.source].fill_row(pick.number, row, batch);
  }
}

void Feed::will_look_up(uint64_t first_sample, int64_t rows) const {
  const uint64_t stop = std::min(first_sample + static_cast<uint64_t>(rows), end());
  for (uint64_t sample = first_sample; sample < stop; ++sample) {
    const auto pick = schedule_->pick(sample);
    loaders_[pick.source].will_look_up(pick.number);
  }
}

void Feed::will_fill(uint64_t first_sample, int64_t rows) const {
  will_look_up(first_sample, rows);
  for (int64_t row = 0; row < rows; ++row) {
    const uint64_t sample = first_sample + static_cast<uint64_t>(row);
    if (sample >= end()) return;
    const auto pick = schedule_->pick(sample);
    loaders_[pick.source].will_fill(pick.number, 1);
  }
}

uint64_t Feed::targets_in(uint64_t first_sample, int64_t rows) const {
  will_look_up(first_sample, rows);
  uint64_t targets = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const auto pick = schedule_->pick(first_sample + static_cast<uint64_t>(row));
    targets += loaders_[pick.source].targets_of(pick.number);
  }
  return targets;
}

std::string Feed::end_reason() const {
  if (end() == MixtureSchedule::kForever) return "it does not end";
  if (schedule_->ended_by() == sources()) return "every source has reached its max_epochs";
  const auto& source = schedule_->sources()[schedule_->ended_by()];
  return fmt::format(
      "source {} has been shown {:.4g} times (max_epochs). Raise its max_epochs, give it less weight, or let "
      "the others go on with then = \"drop\"",
      source.name, static_cast<double>(source.limit) / static_cast<double>(source.samples_per_epoch));
}

std::vector<Feed::Use> Feed::used(uint64_t first_sample, uint64_t count) const {
  std::vector<Use> out;
  for (size_t s = 0; s < sources(); ++s) {
    const uint64_t first = schedule_->count(s, first_sample);
    out.push_back({names_[s], first, schedule_->count(s, first_sample + count) - first,
                   schedule_->sources()[s].samples_per_epoch});
  }
  return out;
}

Hash128 Feed::manifest_hash() const {
  if (loaders_.size() == 1) return loaders_[0].manifest_hash();
  Hasher hasher;
  for (size_t i = 0; i < loaders_.size(); ++i)
    hasher.update(
        fmt::format("{} {} {}\n", names_[i], loaders_[i].manifest_hash().hex(), loaders_[i].options().split));
  return hasher.digest();
}

std::string Feed::description() const {
  FeedDescription d;
  for (size_t i = 0; i < sources(); ++i) d.sources.push_back(identity_of(names_[i], loaders_[i]));
  for (const auto& phase : schedule_->phases()) {
    DescribedPhase p{phase.first_sample, {}};
    for (size_t i = 0; i < sources(); ++i)
      if (phase.weights[i]) p.weights[names_[i]] = phase.weights[i];
    d.phases.push_back(std::move(p));
  }
  return d.to_json();
}

std::string Feed::past_difference(const std::string& saved, uint64_t samples,
                                  uint64_t samples_per_step) const {
  return data::past_difference(FeedDescription::parse(saved, "the checkpoint's data schedule"),
                               FeedDescription::parse(description(), "the data schedule"), samples,
                               samples_per_step);
}

}  // namespace stoker::data
