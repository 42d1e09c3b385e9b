#include "parallel/pipeline_schedule.h"

#include <algorithm>
#include <optional>

#include "base/error.h"

namespace stoker::parallel {
namespace {

using Work = PipelineWork;

// Every chunk of every worker in the order in which a worker meets them: rounds of P micro-batches, within a round chunk by chunk.
std::vector<PipelineAction> dealt(Work work, int64_t workers, int64_t chunks, int64_t micro_batches) {
  std::vector<PipelineAction> out;
  for (int64_t round = 0; round < micro_batches; round += workers)
    for (int64_t c = 0; c < chunks; ++c)
      for (int64_t m = round; m < std::min(micro_batches, round + workers); ++m)
        out.push_back({work, static_cast<int>(work == Work::kForward ? c : chunks - 1 - c), m});
  return out;
}

std::vector<PipelineAction> in_turn(const LayoutSpec& l, int64_t stage, int64_t micro_batches) {
  const int64_t p = l.pipeline, v = l.virtual_stages;
  const auto forwards = dealt(Work::kForward, p, v, micro_batches),
             backwards = dealt(Work::kBackward, p, v, micro_batches);
  const size_t all = forwards.size();
  size_t ahead = static_cast<size_t>(v == 1 ? p - 1 - stage : 2 * (p - 1 - stage) + (v - 1) * p);
  // A short last round breaks the rhythm that interleaving relies on: then everything goes ahead first.
  if (l.schedule == PipelineSchedule::kAllForwardAllBackward || (v > 1 && micro_batches % p != 0))
    ahead = all;
  ahead = std::min(ahead, all);
  std::vector<PipelineAction> out(forwards.begin(), forwards.begin() + static_cast<int64_t>(ahead));
  for (size_t b = 0; b < all; ++b) {
    if (ahead + b < all) out.push_back(forwards[ahead + b]);
    out.push_back(backwards[b]);
  }
  return out;
}

// The workers in lockstep, one unit of time for each kind of work: backward first, then forward while there is room, then weights.
class ZeroBubble {
 public:
  ZeroBubble(int64_t workers, int64_t micro_batches, int64_t per_leaf)
      : micro_batches_(micro_batches), per_leaf_(per_leaf), workers_(static_cast<size_t>(workers)) {
    while (!std::all_of(workers_.begin(), workers_.end(),
                        [&](const Worker& w) { return w.weights == micro_batches_; })) {
      std::vector<Worker> next = workers_;
      for (size_t s = 0; s < workers_.size(); ++s) step(s, next[s]);
      workers_ = std::move(next);
    }
  }
  std::vector<PipelineAction> of(int64_t stage) const { return workers_[static_cast<size_t>(stage)].actions; }

 private:
  struct Worker {
    int64_t forwards = 0, backwards = 0, weights = 0;  // done
    std::vector<PipelineAction> actions;
  };
  void step(size_t s, Worker& next) const {
    const Worker& me = workers_[s];
    const bool last = s + 1 == workers_.size();
    const bool buffer_free = me.backwards % per_leaf_ != 0 || me.weights == me.backwards;
    if (me.backwards < me.forwards && (last || workers_[s + 1].backwards > me.backwards) && buffer_free)
      next.actions.push_back({Work::kBackward, 0, next.backwards++});
    else if (me.forwards < micro_batches_ && (s == 0 || workers_[s - 1].forwards > me.forwards) &&
             me.forwards - me.weights < static_cast<int64_t>(2 * workers_.size() - 1 - s))
      next.actions.push_back({Work::kForward, 0, next.forwards++});
    else if (me.weights < me.backwards) next.actions.push_back({Work::kWeights, 0, next.weights++});
  }
  int64_t micro_batches_, per_leaf_;
  std::vector<Worker> workers_;
};

}  // namespace

PipelinePlan pipeline_plan(const LayoutSpec& l, int64_t stage, int64_t micro_batches, int64_t per_leaf) {
  PipelinePlan plan;
  const bool split = l.schedule == PipelineSchedule::kZeroBubble && l.pipeline > 1;
  plan.actions =
      split ? ZeroBubble(l.pipeline, micro_batches, per_leaf).of(stage) : in_turn(l, stage, micro_batches);
  plan.slots.assign(static_cast<size_t>(l.virtual_stages), 1);
  std::vector<int> flying(plan.slots.size(), 0);
  for (const PipelineAction& a : plan.actions) {
    const auto c = static_cast<size_t>(a.chunk);
    if (a.work == Work::kForward) plan.slots[c] = std::max(plan.slots[c], ++flying[c]);
    else if (a.work == (split ? Work::kWeights : Work::kBackward)) --flying[c];
  }
  return plan;
}

namespace {

// Every worker's actions in an order in which each comes after those it waits for: visit(worker, action, the worker and the action
// that made its input, if any). Internal when the plans wait for one another.
struct Cause {
  size_t worker, action;
};
template <typename Visit>
void in_order(const LayoutSpec& l, const std::vector<PipelinePlan>& plans, const Visit& visit) {
  const auto p = static_cast<size_t>(l.pipeline);
  const size_t chunks = p * static_cast<size_t>(l.virtual_stages);
  size_t micro_batches = 0;
  for (const PipelineAction& a : plans.at(0).actions)
    micro_batches = std::max(micro_batches, static_cast<size_t>(a.micro_batch) + 1);
  constexpr size_t kNever = ~size_t{0};
  std::vector<std::vector<size_t>> forward(chunks, std::vector<size_t>(micro_batches, kNever)),
      backward = forward;  // by which of its worker's actions
  std::vector<size_t> next(p, 0);
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t s = 0; s < p; ++s)
      while (next[s] < plans[s].actions.size()) {
        const PipelineAction& a = plans[s].actions[next[s]];
        const size_t g = static_cast<size_t>(a.chunk) * p + s, m = static_cast<size_t>(a.micro_batch);
        std::optional<Cause> cause;
        if (a.work == Work::kForward && g > 0) cause = Cause{(g - 1) % p, forward[g - 1][m]};
        if (a.work == Work::kBackward && g + 1 < chunks) cause = Cause{(g + 1) % p, backward[g + 1][m]};
        if (a.work == Work::kBackward && g + 1 == chunks) cause = Cause{s, forward[g][m]};
        if (cause && cause->action == kNever) break;
        visit(s, next[s], cause);
        if (a.work == Work::kForward) forward[g][m] = next[s];
        if (a.work == Work::kBackward) backward[g][m] = next[s];
        ++next[s];
        moved = true;
      }
  }
  for (size_t s = 0; s < p; ++s)
    STOKER_CHECK(next[s] == plans[s].actions.size(), "pipeline worker {} waits for ever at action {} of {}",
                 s, next[s], plans[s].actions.size());
}

}  // namespace

std::vector<size_t> known_of_first(const LayoutSpec& l, const std::vector<PipelinePlan>& plans,
                                   int64_t stage) {
  std::vector<std::vector<size_t>> known(plans.size());
  in_order(l, plans, [&](size_t s, size_t action, const std::optional<Cause>& cause) {
    size_t n = s == 0 ? action : known[s].empty() ? 0 : known[s].back();
    if (cause) n = std::max(n, cause->worker == 0 ? cause->action + 1 : known[cause->worker][cause->action]);
    known[s].push_back(n);
  });
  return known.at(static_cast<size_t>(stage));
}

PipelineTimes simulate(const LayoutSpec& l, const std::vector<PipelinePlan>& plans, double forward_s,
                       double backward_s, double weights_s) {
  std::vector<std::vector<double>> done(plans.size());  // when, by action
  double busy = 0;
  in_order(l, plans, [&](size_t s, size_t action, const std::optional<Cause>& cause) {
    const Work work = plans[s].actions[action].work;
    const double takes = work == Work::kForward    ? forward_s
                         : work == Work::kBackward ? backward_s
                                                   : weights_s;
    const double free = done[s].empty() ? 0 : done[s].back();
    done[s].push_back(std::max(free, cause ? done[cause->worker][cause->action] : 0) + takes);
    busy += takes;
  });
  PipelineTimes t;
  for (const auto& d : done) t.seconds = std::max(t.seconds, d.empty() ? 0 : d.back());
  t.idle = 1 - busy / (t.seconds * static_cast<double>(plans.size()));
  return t;
}

}  // namespace stoker::parallel
