#include "cluster/place.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>

#include "base/error.h"

namespace stoker::cluster {
namespace {

constexpr size_t kMostNodes = 100'000;

int number(const std::string& name, const std::string& text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0)
    fail(ErrorKind::kUsage, "environment variable {}: expected a number, found '{}'", name, text);
  return value;
}

struct Reader {
  const Environment& get;
  std::string text(const std::string& name) const { return get(name).value_or(""); }
  std::optional<int> count(const std::string& name) const {
    const auto value = get(name);
    if (!value || value->empty()) return std::nullopt;
    return number(name, *value);
  }
};

Place slurm(const Reader& env, Place place) {
  place.starter = Starter::kSlurm;
  place.rank = env.count("SLURM_PROCID").value_or(0);
  place.size = env.count("SLURM_STEP_NUM_TASKS").value_or(env.count("SLURM_NTASKS").value_or(1));
  place.local_rank = env.count("SLURM_LOCALID").value_or(0);
  place.restart = env.count("SLURM_RESTART_COUNT").value_or(0);
  place.node = env.text("SLURMD_NODENAME");
  if (const auto pmix = env.count("PMIX_RANK"); pmix && *pmix != place.rank)
    fail(ErrorKind::kUsage,
         "SLURM_PROCID says rank {} and PMIX_RANK says {}: start with srun directly, not through mpirun",
         place.rank, *pmix);
  if (place.rank >= place.size)
    fail(ErrorKind::kUsage, "SLURM_PROCID is {} but the step has {} tasks", place.rank, place.size);
  const std::string nodes = env.text("SLURM_STEP_NODELIST");
  if (place.node.empty() && !nodes.empty()) place.node = expand_node_list(nodes).front();
  place.worker = fmt::format("j{}.{}.{}.r{}", env.text("SLURM_JOB_ID"), env.text("SLURM_STEP_ID"),
                             place.restart, place.rank);
  return place;
}

void expand_range(std::string_view prefix, std::string_view range, std::string_view suffix,
                  std::vector<std::string>& out) {
  const auto bad = [&]() {
    fail(ErrorKind::kUsage, "node list: expected a range such as 1-3 or 07, found '{}'", range);
  };
  const size_t dash = range.find('-');
  const std::string_view first = range.substr(0, dash),
                         last = dash == range.npos ? first : range.substr(dash + 1);
  uint64_t a = 0, b = 0;
  const auto parse = [&](std::string_view t, uint64_t& v) {
    const auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), v);
    if (t.empty() || error != std::errc{} || end != t.data() + t.size()) bad();
  };
  parse(first, a);
  parse(last, b);
  if (b < a || b - a >= kMostNodes || out.size() + (b - a) >= kMostNodes || first.size() > 20) bad();
  for (uint64_t i = a; i <= b; ++i) {
    std::string digits = std::to_string(i);
    if (digits.size() < first.size()) digits.insert(0, first.size() - digits.size(), '0');
    out.push_back(fmt::format("{}{}{}", prefix, digits, suffix));
  }
}

void expand_item(std::string_view item, std::vector<std::string>& out) {
  const size_t open = item.find('[');
  if (item.empty()) fail(ErrorKind::kUsage, "node list: an empty name between commas");
  if (open == item.npos) {
    if (item.find(']') != item.npos)
      fail(ErrorKind::kUsage, "node list: '{}' closes a bracket that is not open", item);
    out.emplace_back(item);
    return;
  }
  const size_t close = item.find(']', open);
  if (close == item.npos || item.find('[', open + 1) != item.npos || item.find(']', close + 1) != item.npos)
    fail(ErrorKind::kUsage, "node list: expected one pair of brackets in '{}'", item);
  std::string_view ranges = item.substr(open + 1, close - open - 1);
  for (;;) {
    const size_t comma = ranges.find(',');
    expand_range(item.substr(0, open), ranges.substr(0, comma), item.substr(close + 1), out);
    if (comma == ranges.npos) return;
    ranges.remove_prefix(comma + 1);
  }
}

}  // namespace

std::optional<std::string> process_environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

Place find_place(const Environment& environment) {
  const Reader env{environment};
  Place place;
  place.coordinator = env.text("STOKER_COORDINATOR");
  place.token = env.text("STOKER_TOKEN");
  place.token_file = env.text("STOKER_TOKEN_FILE");
  place.run_dir = env.text("STOKER_RUN_DIR");
  place.worker = env.text("STOKER_WORKER");
  place.local_rank = env.count("STOKER_LOCAL_RANK").value_or(0);
  place.local_workers = env.count("STOKER_LOCAL_WORKERS").value_or(1);
  if (const auto index = environment("JOB_COMPLETION_INDEX");
      index && !place.coordinator.empty() && place.worker.empty()) {
    place.starter = Starter::kKubernetes;
    place.rank = number("JOB_COMPLETION_INDEX", *index);
    place.size = env.count("STOKER_WORKERS").value_or(1);
    place.node = env.text("STOKER_NODE");
    // The pod's own name changes when the index is retried: the zombie of the old pod cannot pass for the new one.
    place.worker = fmt::format("k{}.{}", place.rank, env.text("HOSTNAME"));
    return place;
  }
  if (!place.coordinator.empty()) {
    if (place.worker.empty())
      fail(ErrorKind::kUsage,
           "STOKER_COORDINATOR is set but STOKER_WORKER is not: start workers with stoker launch or join");
    place.starter = Starter::kLaunch;
    return place;
  }
  if (environment("SLURM_PROCID") && environment("SLURM_STEP_ID") &&
      env.count("SLURM_NTASKS").value_or(1) > 1)
    return slurm(env, place);
  return place;
}

std::vector<std::string> expand_node_list(std::string_view text) {
  std::vector<std::string> out;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] == '[') ++depth;
    if (i < text.size() && text[i] == ']') --depth;
    if (i < text.size() && (text[i] != ',' || depth > 0)) continue;
    expand_item(text.substr(begin, i - begin), out);
    begin = i + 1;
    if (out.size() > kMostNodes) fail(ErrorKind::kUsage, "node list: more than {} names", kMostNodes);
  }
  return out;
}

}  // namespace stoker::cluster
