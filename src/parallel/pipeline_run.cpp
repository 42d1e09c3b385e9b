#include "parallel/pipeline_run.h"

#include <algorithm>
#include <cstring>

namespace stoker::parallel {
namespace {

using Work = PipelineWork;
constexpr size_t kAhead = 2;  // messages of one peer being received before they are needed

size_t find_action(const PipelinePlan& plan, Work work, int64_t chunk, int64_t micro_batch) {
  const PipelineAction wanted{work, static_cast<int>(chunk), micro_batch};
  const auto at = std::find(plan.actions.begin(), plan.actions.end(), wanted);
  STOKER_CHECK(at != plan.actions.end());
  return static_cast<size_t>(at - plan.actions.begin());
}

std::vector<PipelinePlan> plans_of(const LayoutSpec& layout, int64_t leaves, int64_t per_leaf) {
  std::vector<PipelinePlan> plans;
  for (int64_t s = 0; s < layout.pipeline; ++s)
    plans.push_back(pipeline_plan(layout, s, leaves * per_leaf, per_leaf));
  return plans;
}

// The first worker's actions after which it sends the lookups of each virtual rank.
std::vector<size_t> lookups_made(const PipelinePlan& first, int64_t leaves, int64_t per_leaf) {
  std::vector<size_t> made;
  for (int64_t leaf = 0; leaf < leaves; ++leaf)
    made.push_back(find_action(first, Work::kBackward, 0, (leaf + 1) * per_leaf - 1));
  return made;
}

// Per action of the last worker.
std::vector<size_t> lookups_due(const LayoutSpec& layout, const std::vector<PipelinePlan>& plans,
                                const std::vector<size_t>& made) {
  std::vector<size_t> due;
  for (const size_t known : known_of_first(layout, plans, layout.pipeline - 1))
    due.push_back(static_cast<size_t>(std::lower_bound(made.begin(), made.end(), known) - made.begin()));
  return due;
}

}  // namespace

PipelineRun::PipelineRun(const LayoutSpec& layout, int64_t stage, int64_t leaves, int64_t present,
                         int64_t per_leaf, bool lookups, comm::Communicator* line)
    : layout_(layout),
      stage_(stage),
      leaves_(leaves),
      present_(present),
      per_leaf_(per_leaf),
      lookups_(lookups && layout.pipeline > 1),
      line_(line),
      plans_(plans_of(layout, leaves, per_leaf)) {
  const auto p = static_cast<size_t>(layout.pipeline);
  STOKER_CHECK(layout.pipeline == 1 || (line && line->size() == layout.pipeline && line->rank() == stage));
  if (lookups_) {
    lookups_made_ = lookups_made(plans_[0], leaves, per_leaf);
    lookups_due_ = lookups_due(layout, plans_, lookups_made_);
  }
  incoming_.resize(p), outgoing_.resize(p), use_of_.resize(p), outbox_.resize(p), inbox_.resize(p);
  started_.assign(p, 0);
  for (int64_t s = 0; s < layout.pipeline; ++s) {
    if (s == stage) continue;
    const auto at = static_cast<size_t>(s);
    incoming_[at] = messages(s, stage);
    outgoing_[at] = messages(stage, s);
    for (const Message& m : outgoing_[at]) use_of_[at][m.key] = m.used;
  }
}

size_t PipelineRun::awaited_lookups(const LayoutSpec& layout, int64_t leaves, int64_t per_leaf) {
  if (layout.pipeline == 1) return 0;
  const auto plans = plans_of(layout, leaves, per_leaf);
  const auto due = lookups_due(layout, plans, lookups_made(plans[0], leaves, per_leaf));
  const bool split = layout.schedule == PipelineSchedule::kZeroBubble;
  size_t ended = 0, taken = 0, most = 0;
  for (size_t i = 0; i < due.size(); ++i) {
    const PipelineAction& a = plans.back().actions[i];
    ended += a.work == (split ? Work::kWeights : Work::kBackward) && a.chunk == layout.virtual_stages - 1 &&
             (a.micro_batch + 1) % per_leaf == 0;
    most = std::max(most, ended - taken);
    taken = due[i];
  }
  return most;
}

const PipelineAction* PipelineRun::upcoming() const {
  const auto& actions = plan().actions;
  for (size_t i = at_; i < actions.size() && ++i < actions.size();)
    if (actions[i].work != Work::kWeights) return &actions[i];
  return nullptr;
}

// What `from` sends to `to`, in order.
std::vector<PipelineRun::Message> PipelineRun::messages(int64_t from, int64_t to) const {
  const int64_t p = layout_.pipeline, chunks = p * layout_.virtual_stages;
  const PipelinePlan &sender = plans_[static_cast<size_t>(from)], &receiver = plans_[static_cast<size_t>(to)];
  std::vector<Message> out;
  for (size_t i = 0; i < sender.actions.size(); ++i) {
    const PipelineAction& a = sender.actions[i];
    if (absent(a)) continue;
    const int64_t g = a.chunk * p + from;
    if (a.work == Work::kForward && g + 1 < chunks && worker_of(g + 1) == to)
      out.push_back({{What::kActivation, g + 1, a.micro_batch},
                     i,
                     find_action(receiver, Work::kForward, (g + 1) / p, a.micro_batch)});
    if (a.work != Work::kBackward) continue;
    if (g > 0 && worker_of(g - 1) == to)
      out.push_back({{What::kGradient, g - 1, a.micro_batch},
                     i,
                     find_action(receiver, Work::kBackward, (g - 1) / p, a.micro_batch)});
    if (lookups_ && g == 0 && to == p - 1 && (a.micro_batch + 1) % per_leaf_ == 0)
      out.push_back({{What::kLookups, 0, a.micro_batch / per_leaf_}, i, receiver.actions.size()});
  }
  return out;
}

void PipelineRun::send(int64_t to, const Key& key, std::span<const std::byte> data) {
  auto& box = outbox_[static_cast<size_t>(to)];
  Sent& s = box.emplace_back();
  s.used = use_of_[static_cast<size_t>(to)].at(key);
  s.copy.assign(data.begin(), data.end());
  s.ticket = line_->post_send(s.copy, static_cast<int>(to));
  size_t kept = 0;
  for (const auto& b : outbox_) kept += b.size();
  outbox_peak_ = std::max(outbox_peak_, kept);
}

void PipelineRun::start_receiving(int64_t from, PipelineWorker& worker, const Key* until) {
  const auto at = static_cast<size_t>(from);
  const auto& expected = incoming_[at];
  bool reached = until == nullptr;
  for (const Arriving& a : inbox_[at]) reached |= until && a.message.key == *until;
  while (started_[at] < expected.size() && (!reached || inbox_[at].size() < kAhead)) {
    const Message& m = expected[started_[at]];
    if (m.key.what == What::kLookups && reached) break;  // its size is known when it is due
    Arriving& a = inbox_[at].emplace_back();
    a.message = m;
    a.data.resize(m.key.what == What::kLookups ? worker.lookup_bytes(m.key.index) : message_bytes_);
    a.ticket = line_->post_receive(a.data, static_cast<int>(from));
    ++started_[at];
    reached |= until && m.key == *until;
  }
  size_t ahead = 0;
  for (const auto& b : inbox_) ahead += b.size();
  inbox_peak_ = std::max(inbox_peak_, ahead);
}

void PipelineRun::settle(int64_t peer, size_t done) {
  auto& box = outbox_[static_cast<size_t>(peer)];
  std::erase_if(box, [&](Sent& s) {
    if (s.used >= done) return false;
    line_->await(s.ticket);
    return true;
  });
}

void PipelineRun::receive(int64_t from, const Key& key, std::span<std::byte> into, PipelineWorker& worker) {
  start_receiving(from, worker, &key);
  auto& box = inbox_[static_cast<size_t>(from)];
  const auto found =
      std::find_if(box.begin(), box.end(), [&](const Arriving& a) { return a.message.key == key; });
  STOKER_CHECK(found != box.end());
  line_->await(found->ticket);
  std::memcpy(into.data(), found->data.data(), into.size());
  const size_t made = found->message.made;
  box.erase(found);
  settle(from, made + 1);
}

// The lookups that the first worker is known to have made before this worker's action `before`, in the order of virtual ranks.
void PipelineRun::take_lookups(PipelineWorker& worker, size_t before) {
  if (!lookups_ || stage_ != layout_.pipeline - 1) return;
  const auto due = before < lookups_due_.size() ? static_cast<int64_t>(lookups_due_[before]) : leaves_;
  for (; lookups_taken_ < due; ++lookups_taken_) {
    if (lookups_taken_ >= present_) {
      worker.take_lookups(lookups_taken_, {});
      continue;
    }
    const Key key{What::kLookups, 0, lookups_taken_};
    start_receiving(0, worker, &key);
    auto& box = inbox_[0];
    const auto found =
        std::find_if(box.begin(), box.end(), [&](const Arriving& a) { return a.message.key == key; });
    STOKER_CHECK(found != box.end());
    line_->await(found->ticket);
    worker.take_lookups(lookups_taken_, found->data);
    box.erase(found);
  }
}

void PipelineRun::run(PipelineWorker& worker) {
  const int64_t p = layout_.pipeline, chunks = p * layout_.virtual_stages;
  std::fill(started_.begin(), started_.end(), 0);
  lookups_taken_ = 0;
  for (at_ = 0; at_ < plan().actions.size(); ++at_) {
    const PipelineAction& a = plan().actions[at_];
    const int64_t g = a.chunk * p + stage_;
    if (absent(a)) {
      worker.absent(a);
      take_lookups(worker, at_);
      continue;
    }
    switch (a.work) {
      case Work::kForward: {
        const auto input = worker.input(a.chunk, a.micro_batch);
        message_bytes_ = input.size();
        if (g > 0) receive(worker_of(g - 1), {What::kActivation, g, a.micro_batch}, input, worker);
        worker.forward(a.chunk, a.micro_batch);
        if (g + 1 < chunks)
          send(worker_of(g + 1), {What::kActivation, g + 1, a.micro_batch}, worker.output(a.chunk));
        break;
      }
      case Work::kBackward:
        if (g + 1 < chunks)
          receive(worker_of(g + 1), {What::kGradient, g, a.micro_batch}, worker.gradient(a.chunk), worker);
        worker.backward(a.chunk, a.micro_batch);
        if (g > 0) send(worker_of(g - 1), {What::kGradient, g - 1, a.micro_batch}, worker.gradient(a.chunk));
        if (lookups_ && g == 0 && (a.micro_batch + 1) % per_leaf_ == 0)
          send(p - 1, {What::kLookups, 0, a.micro_batch / per_leaf_},
               worker.lookups(a.micro_batch / per_leaf_));
        break;
      case Work::kWeights:
        worker.weights(a.chunk, a.micro_batch);
        break;
    }
    take_lookups(worker, at_);
  }
  take_lookups(worker, at_);
  for (auto& box : outbox_) {
    for (Sent& s : box) line_->await(s.ticket);
    box.clear();
  }
}

}  // namespace stoker::parallel
