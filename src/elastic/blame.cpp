#include "elastic/blame.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <utility>

namespace stoker::elastic {
namespace {

struct Loss {
  int from, to;
  int64_t message;
};

std::vector<Loss> losses_in(const std::map<int, Standing>& standings) {
  std::vector<Loss> out;
  double longest_s = 0;
  for (const auto& [rank, standing] : standings) longest_s = std::max(longest_s, standing.waited_s);
  for (const auto& [rank, standing] : standings) {
    if (standing.waited_s < longest_s / 2) continue;
    const auto sender = standings.find(standing.waits_on);
    if (sender == standings.end() || standing.message < 0) continue;
    const auto& sent = sender->second.sent;
    if (static_cast<size_t>(rank) < sent.size() &&
        sent[static_cast<size_t>(rank)] > static_cast<uint64_t>(standing.message))
      out.push_back({standing.waits_on, rank, standing.message});
  }
  return out;
}

std::vector<Blame> blame_for(const std::vector<Loss>& losses) {
  std::map<int, std::pair<int, int>> parts;  // rank -> losses it has a part in, of them as sender
  for (const Loss& l : losses) {
    ++parts[l.from].first, ++parts[l.from].second;
    ++parts[l.to].first;
  }
  const auto most = std::max_element(parts.begin(), parts.end(), [](const auto& a, const auto& b) {
                      return a.second < b.second;
                    })->second;
  std::vector<Blame> out;
  for (const auto& [rank, part] : parts) {
    if (part != most) continue;
    const Loss& l = *std::find_if(losses.begin(), losses.end(),
                                  [r = rank](const Loss& x) { return x.from == r || x.to == r; });
    out.push_back({rank, fmt::format("message {} from rank {} to rank {} was sent and never arrived",
                                     l.message, l.from, l.to)});
  }
  return out;
}

// Where the queue that begins at this rank ends; -1: in a circle.
int end_of_queue(const std::map<int, Standing>& standings, int rank) {
  std::set<int> seen;
  for (auto at = standings.find(rank); at != standings.end(); at = standings.find(rank)) {
    if (!seen.insert(rank).second) return -1;
    if (at->second.waits_on < 0) return rank;
    rank = at->second.waits_on;
  }
  return rank;
}

}  // namespace

std::vector<Blame> who_held_up(const std::map<int, Standing>& standings) {
  const auto losses = losses_in(standings);
  if (!losses.empty()) return blame_for(losses);
  std::map<int, int> waiting;  // at the end of whose queue how many stand
  for (const auto& [rank, standing] : standings)
    if (standing.waits_on >= 0)
      if (const int end = end_of_queue(standings, rank); end >= 0) ++waiting[end];
  std::vector<Blame> out;
  int most = 0;
  for (const auto& [rank, count] : waiting) most = std::max(most, count);
  for (const auto& [rank, count] : waiting)
    if (count == most) out.push_back({rank, fmt::format("{} waited for it", count)});
  return out;
}

}  // namespace stoker::elastic
