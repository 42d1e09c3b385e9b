#include "data/loader/feed_description.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "data/loader/mixture.h"
#include "data/shard/strict_json.h"

namespace stoker::data {
namespace {
using Json = nlohmann::json;
constexpr std::string_view kFormat = "stoker-feed";

const SourceIdentity* find(const FeedDescription& feed, const std::string& name) {
  for (const auto& s : feed.sources)
    if (s.name == name) return &s;
  return nullptr;
}

const DescribedPhase& phase_at(const FeedDescription& feed, uint64_t sample) {
  size_t p = 0;
  while (p + 1 < feed.phases.size() && feed.phases[p + 1].first_sample <= sample) ++p;
  return feed.phases[p];
}

std::string shares(const DescribedPhase& phase) {
  double total = 0;
  for (const auto& [name, weight] : phase.weights) total += static_cast<double>(weight);
  std::string out;
  for (const auto& [name, weight] : phase.weights)
    out += fmt::format("{}{} {:.4g} %", out.empty() ? "" : ", ", name,
                       100 * static_cast<double>(weight) / total);
  return out;
}

std::string source_difference(const SourceIdentity& before, const SourceIdentity& now) {
  const auto differs = [&](const char* what, const auto& was, const auto& is) {
    return fmt::format("source {}: {} was {} and is now {}", before.name, what, was, is);
  };
  if (before.dataset != now.dataset) return differs("its dataset", before.dataset, now.dataset);
  if (before.split != now.split) return differs("its split", before.split, now.split);
  const auto or_none = [](const std::string& plan) { return plan.empty() ? "none" : plan; };
  if (before.plan != now.plan) return differs("its packing plan", or_none(before.plan), or_none(now.plan));
  if (before.samples_per_epoch != now.samples_per_epoch)
    return differs("its samples per epoch", before.samples_per_epoch, now.samples_per_epoch);
  if (before.shuffle_rows != now.shuffle_rows)
    return differs("data.shuffle_rows", before.shuffle_rows, now.shuffle_rows);
  if (before.seed != now.seed) return differs("its seed", before.seed, now.seed);
  return "";
}
}  // namespace

std::string FeedDescription::to_json() const {
  Json source_list = Json::array(), phase_list = Json::array();
  for (const auto& s : sources)
    source_list.push_back({{"name", s.name},
                           {"dataset", s.dataset},
                           {"split", s.split},
                           {"plan", s.plan},
                           {"samples_per_epoch", s.samples_per_epoch},
                           {"shuffle_rows", s.shuffle_rows},
                           {"seed", s.seed}});
  for (const auto& p : phases)
    phase_list.push_back({{"first_sample", p.first_sample}, {"weights", p.weights}});
  return Json{{"format", kFormat}, {"version", 1}, {"sources", source_list}, {"phases", phase_list}}.dump(
      -1, ' ', false, Json::error_handler_t::replace);
}

FeedDescription FeedDescription::parse(std::string_view text, std::string_view where) {
  const std::string file(where);
  const Json json = parse_strict_object(text, file, "take an older checkpoint");
  Fields f(json, file, "");
  f.expect_format(kFormat, 1);
  FeedDescription d;
  const Json &sources = f.at("sources"), &phases = f.at("phases");
  if (!sources.is_array() || sources.empty()) f.fail_field("sources", "a list of sources", sources);
  if (!phases.is_array() || phases.empty()) f.fail_field("phases", "a list of phases", phases);
  f.no_others();
  std::set<std::string> names;
  for (const Json& entry : sources) {
    Fields s(entry, file, fmt::format("sources[{}]", d.sources.size()));
    SourceIdentity id;
    id.name = s.text("name");
    id.dataset = s.text("dataset");
    id.split = s.text("split");
    id.plan = s.text("plan");
    id.samples_per_epoch = s.whole("samples_per_epoch");
    id.shuffle_rows = s.whole("shuffle_rows");
    id.seed = s.whole("seed");
    s.no_others();
    if (id.samples_per_epoch == 0) s.fail_field("samples_per_epoch", "at least 1", entry);
    if (!names.insert(id.name).second)
      fail(ErrorKind::kData, "{}: field \"sources\": \"{}\" is there twice", file, id.name);
    d.sources.push_back(std::move(id));
  }
  for (const Json& entry : phases) {
    Fields p(entry, file, fmt::format("phases[{}]", d.phases.size()));
    DescribedPhase phase{p.whole("first_sample"), {}};
    const Json& weights = p.at("weights");
    if (!weights.is_object() || weights.empty()) p.fail_field("weights", "an object of weights", weights);
    for (const auto& [name, weight] : weights.items()) {
      if (!weight.is_number_unsigned() || weight.get<uint64_t>() == 0 ||
          weight.get<uint64_t>() > MixtureSchedule::kMostWeight)
        p.fail_field("weights." + name, "a whole number above 0", weight);
      if (!names.count(name)) p.fail_field("weights." + name, "the name of a source", name);
      phase.weights[name] = weight.get<uint64_t>();
    }
    p.no_others();
    if (phase.first_sample != 0 ? d.phases.empty() || phase.first_sample <= d.phases.back().first_sample
                                : !d.phases.empty())
      p.fail_field("first_sample", d.phases.empty() ? "0" : "more than in the phase before",
                   phase.first_sample);
    d.phases.push_back(std::move(phase));
  }
  return d;
}

std::string past_difference(const FeedDescription& before, const FeedDescription& now, uint64_t samples,
                            uint64_t samples_per_step) {
  const uint64_t steps = samples_per_step ? (samples + samples_per_step - 1) / samples_per_step : 0;
  const auto step_of = [&](uint64_t sample) { return samples_per_step ? sample / samples_per_step : 0; };
  std::set<uint64_t> begins;  // where either of them begins something
  for (const auto* feed : {&before, &now})
    for (const auto& phase : feed->phases)
      if (phase.first_sample < samples) begins.insert(phase.first_sample);
  std::set<std::string> shown;
  for (const uint64_t at : begins) {
    const auto &was = phase_at(before, at), &is = phase_at(now, at);
    for (const auto& [name, weight] : was.weights) {
      const auto it = is.weights.find(name);
      if (it == is.weights.end() && !find(now, name))
        return fmt::format("source {} is gone, but it was in use from step {} on", name, step_of(at));
      shown.insert(name);
    }
    if (was.weights != is.weights)
      return fmt::format(
          "from step {} on (sample {}) the mixture was {}, and is now {}; {} steps are done, and only what "
          "begins after them may change",
          step_of(at), at, shares(was), shares(is), steps);
    if (was.first_sample != is.first_sample)
      return fmt::format(
          "the phase of the mixture that held at step {} began at sample {}, and now begins at sample {}; {} "
          "steps are done, and only what begins after them may change",
          step_of(at), was.first_sample, is.first_sample, steps);
  }
  for (const auto& name : shown)
    if (const auto difference = source_difference(*find(before, name), *find(now, name)); !difference.empty())
      return difference;
  return "";
}

}  // namespace stoker::data
