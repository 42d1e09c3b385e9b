#include "elastic/membership.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace stoker::elastic {
namespace {

using nlohmann::json;
constexpr size_t kBlames = 2;          // generations in which somebody must be blamed to be put out
constexpr double kGatePatience_s = 1;  // how long one that holds the others up may take to say so itself
constexpr size_t kEventsKept = 4096;
constexpr double kZombiesHear_s = 2;  // how long until workers of another attempt know that they are out
constexpr double kTimesToFindUs =
    3;  // with other work on its cores a worker has needed over 5 s to find a coordinator that moved
constexpr double kOwnSleep_s = 0.5;  // ticks come many times a second
constexpr double kStandstill_s = 1;  // from here on deadlines of collectives may have passed in it
constexpr double kAftermath_s = 3;   // how long after it they are accused of it

json to_json(const WorkerInfo& who) {
  return {{"worker", who.worker},
          {"host", who.host},
          {"pid", who.pid},
          {"address", who.address},
          {"memory_domain", who.memory_domain}};
}
WorkerInfo worker_from(const json& j) {
  return {j.at("worker"), j.at("host"), j.at("pid"), j.at("address"), j.at("memory_domain")};
}

std::string count_of_workers(int n) { return fmt::format("{} worker{}", n, n == 1 ? "" : "s"); }

// Of two, the mean: base/median.h would let the slower of two witnesses decide alone.
double usual_of(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.size() % 2 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
}

}  // namespace

std::string Event::json() const {
  return nlohmann::json{
      {"number", number}, {"unix_s", unix_s}, {"kind", kind},           {"worker", worker},
      {"host", host},     {"pid", pid},       {"rank", rank},           {"generation", generation},
      {"step", step},     {"phase", phase},   {"last_call", last_call}, {"text", text}}
      .dump();
}

Membership::Membership(MembershipConfig config, Clock& clock)
    : config_(std::move(config)), clock_(clock), broken_since_s_(clock.now_s()) {
  if (config_.target < 1 || config_.minimum < 1 || config_.minimum > config_.target)
    fail(ErrorKind::kUsage, "workers {} with a minimum of {}: expected 1 <= minimum <= workers",
         config_.target, config_.minimum);
}

Membership::Worker& Membership::know(const WorkerInfo& who) {
  auto [it, is_new] = workers_.try_emplace(who.worker);
  Worker& w = it->second;
  if (is_new) {
    w.who = who;
    w.joined = next_join_++;
    w.last_heard_s = clock_.now_s();
    if (!admits(who.worker)) {
      w.life = Life::kGone;
      w.why = fmt::format("{} belongs to an attempt that has been given up; only {}* may take part",
                          who.worker, config_.admit);
      record("fenced-call", &w, w.why);
      ++changes_;
      return w;
    }
    record("joined", &w, fmt::format("{} on {} (pid {}) asks to join", who.worker, who.host, who.pid));
  }
  if (w.life != Life::kGone) w.who = who;
  return w;
}

bool Membership::admits(const std::string& worker) const {
  return config_.admit.empty() || worker.starts_with(config_.admit) || worker.starts_with("join.");
}

Membership::Worker* Membership::find(const std::string& worker) {
  const auto it = workers_.find(worker);
  return it == workers_.end() ? nullptr : &it->second;
}

Event& Membership::record(const std::string& kind, const Worker* w, const std::string& text) {
  Event e;
  e.number = next_event_++;
  e.unix_s = clock_.unix_s();
  e.kind = kind;
  e.text = text;
  e.generation = generation_;
  if (w != nullptr) {
    e.worker = w->who.worker;
    e.host = w->who.host;
    e.pid = w->who.pid;
    e.rank = w->rank;
    e.phase = w->pulse.phase;
    e.last_call = w->pulse.last_call;
    e.step = w->pulse.step;
  }
  events_.push_back(std::move(e));
  if (events_.size() > kEventsKept) events_.pop_front();
  return events_.back();
}

void Membership::break_generation(const std::string& why) {
  if (broken_) return;
  broken_ = true;
  broken_since_s_ = clock_.now_s();
  broken_why_ = why;
}

void Membership::remove(Worker& w, const std::string& kind, const std::string& why) {
  if (w.life == Life::kGone) return;
  const bool was_member = w.life == Life::kMember;
  const std::string text =
      w.rank < 0
          ? fmt::format("{} (host {}, pid {}) {}; it had no part in the run yet", w.who.worker, w.who.host,
                        w.who.pid, why)
          : fmt::format("rank {} ({}, host {}, pid {}) {}; it was in {} of step {}, {}", w.rank, w.who.worker,
                        w.who.host, w.who.pid, why, w.pulse.phase.empty() ? "start-up" : w.pulse.phase,
                        w.pulse.step, w.pulse.last_call.empty() ? "no collective yet" : w.pulse.last_call);
  record(kind, &w, text);
  w.life = Life::kGone;
  w.at_gate = false;
  w.why = text;
  w.released = kind == "released" || kind == "finished" || kind == "left";
  ++changes_;
  if (was_member && kind != "finished") {
    if (!broken_) lost_to_ = kind;
    break_generation(text);
  }
}

HeartbeatAnswer Membership::heartbeat(const WorkerInfo& who, uint64_t generation, const Pulse& pulse) {
  Worker& w = know(who);
  HeartbeatAnswer out;
  out.generation = generation_;
  out.stop = stopping_;
  if (w.life == Life::kGone) {
    if (!w.released) record("fenced-call", &w, fmt::format("{} called after it was put out", who.worker));
    out.fenced = true;
    out.why = w.why;
    return out;
  }
  w.last_heard_s = clock_.now_s();
  w.must_find_us = false;
  w.pulse = pulse;
  generation_ =
      std::max(generation_, generation);  // a coordinator that lost its state learns it from the living
  if (pulse.step > blamed_step_) blamed_.clear();
  judge_speed();
  const bool member = w.life == Life::kMember;
  out.regroup_now = (member && broken_) || (generation > 0 && generation < generation_);
  out.why = broken_why_;
  int members = 0, waiting = 0;
  for (const auto& [name, other] : workers_) {
    members += other.life == Life::kMember;
    waiting += other.life == Life::kJoining && other.at_gate;
  }
  out.regroup_soon = member && ((waiting > 0 && members < config_.target) || members > config_.target);
  return out;
}

void Membership::arrive(const WorkerInfo& who, uint64_t generation, const Pulse& pulse, std::string state,
                        Standing standing) {
  Worker& w = know(who);
  if (w.life == Life::kGone) return;
  w.last_heard_s = clock_.now_s();
  w.must_find_us = false;
  w.pulse = pulse;
  w.state = std::move(state);
  if (w.formed > generation) return;  // its answer is ready: the last one got lost on the way
  w.at_gate = true;
  if (w.life == Life::kMember) {
    if (generation == generation_) w.standing = std::move(standing);
    if (!broken_) lost_to_ = "regroup";  // somebody joins or leaves as agreed, or a link failed
    break_generation(fmt::format("rank {} came to the gate", w.rank));
  }
  try_form();
}

void Membership::withdraw(const std::string& worker) {
  if (Worker* w = find(worker)) w->at_gate = false;
}

GateAnswer Membership::gate(const std::string& worker) {
  GateAnswer out;
  out.generation = generation_;
  Worker* w = find(worker);
  if (w == nullptr) return out;
  if (w->life == Life::kGone) {
    out.outcome = w->released ? GateAnswer::Outcome::kReleased : GateAnswer::Outcome::kFenced;
    out.why = w->why;
  } else if (finished_) {
    out.outcome = GateAnswer::Outcome::kReleased;
    out.why = "the run is complete";
  } else if (stopping_) {
    out.outcome = GateAnswer::Outcome::kStopped;
    out.why = stop_why_;
  } else if (w->formed == generation_ && generation_ > 0 && !w->at_gate) {
    out.outcome = GateAnswer::Outcome::kFormed;
    out.rank = w->rank;
    out.members = members_;
  }
  return out;
}

std::vector<Membership::Worker*> Membership::live() {
  std::vector<Worker*> out;
  for (auto& [name, w] : workers_)
    if (w.life == Life::kMember || (w.life == Life::kJoining && w.at_gate)) out.push_back(&w);
  std::sort(out.begin(), out.end(), [](const Worker* a, const Worker* b) {
    const auto key = [](const Worker* w) {
      return std::pair(w->life == Life::kMember ? 0 : 1,
                       w->life == Life::kMember ? int64_t{w->rank} : w->joined);
    };
    return key(a) < key(b);
  });
  return out;
}

void Membership::try_form() {
  if (!broken_ || stopping_) return;
  auto candidates = live();
  const bool all_are_here =
      std::all_of(candidates.begin(), candidates.end(), [](Worker* w) { return w->at_gate; });
  judge_waiting(all_are_here);
  if (!all_are_here) return;
  // A link that fails again and again although both ends are alive: the end that is blamed most goes.
  std::string worst;
  size_t most = 0;
  for (const auto& [worker, generations] : blamed_)
    if (generations.size() >= kBlames && generations.size() >= most)
      worst = worker, most = generations.size();
  if (!worst.empty()) {
    blamed_.erase(worst);
    if (Worker* w = find(worst); w != nullptr && w->life == Life::kMember) {
      remove(*w, "link", "could not be reached by the others although it answers the coordinator");
      candidates = live();
    }
  }
  const auto count = static_cast<int>(candidates.size());
  if (count < config_.minimum || clock_.now_s() < no_generation_before_s_) return;
  if (generation_ == 0 && count < config_.target && clock_.now_s() - broken_since_s_ < config_.gather_s)
    return;
  const size_t keep = std::min<size_t>(candidates.size(), static_cast<size_t>(config_.target));
  for (size_t i = keep; i < candidates.size(); ++i)  // newcomers beyond the target stay at the gate as spares
    if (candidates[i]->life == Life::kMember)
      remove(*candidates[i], "released",
             fmt::format("was released: {} wanted", count_of_workers(config_.target)));
  candidates.resize(keep);
  ++generation_;
  ++changes_;
  broken_ = false;
  judged_ = false;
  accusers_.clear();
  members_.clear();
  for (size_t i = 0; i < candidates.size(); ++i) {
    Worker& w = *candidates[i];
    const int previous = w.life == Life::kMember ? w.rank : -1;
    w.life = Life::kMember;
    w.rank = static_cast<int>(i);
    w.at_gate = false;
    w.formed = generation_;
    w.slow_steps = 0;
    w.standing.reset();
    members_.push_back({w.who, w.rank, previous, w.state});
  }
  record("formed", nullptr,
         fmt::format("generation {} with {}, {:.2f} s after: {}", generation_,
                     count_of_workers(static_cast<int>(members_.size())), clock_.now_s() - broken_since_s_,
                     broken_why_));
}

// Each accuser saw only whom it waited for itself. Now that they have told what they waited for, it shows who began it.
void Membership::judge_waiting(bool all_are_here) {
  if (judged_ || accusers_.empty() || (!all_are_here && clock_.now_s() - broken_since_s_ < kGatePatience_s))
    return;
  judged_ = true;
  if (stood_still_s_ > 0 && clock_.now_s() - awake_since_s_ < kAftermath_s) {
    record(
        "standstill", nullptr,
        fmt::format("the coordinator stood still for {:.1f} s, and deadlines passed in generation {}: nobody "
                    "is to blame where the whole machine slept or was paused",
                    stood_still_s_, generation_));
    return;
  }
  std::map<int, Standing> standings;
  std::map<int, Worker*> member;
  for (auto& [name, w] : workers_) {
    if (w.life != Life::kMember) continue;
    member[w.rank] = &w;
    if (w.standing) standings[w.rank] = *w.standing;
  }
  auto blames = who_held_up(standings);
  if (blames.empty()) {  // nobody could tell: what most say
    int most = 0;
    for (const auto& [name, count] : accusers_) most = std::max(most, count);
    for (const auto& [name, count] : accusers_)
      if (count == most) blames.push_back({workers_[name].rank, fmt::format("{} accused it", count)});
  }
  for (const Blame& b : blames) {
    const auto it = member.find(b.rank);  // not there: put out meanwhile, and named as such
    // One that waits for its data is late through no fault of its link; it comes to the gate like the others.
    if (it == member.end() || it->second->pulse.phase == "data") continue;
    Worker& w = *it->second;
    record("blamed", &w,
           fmt::format("rank {} ({}, host {}, pid {}) held generation {} up: {}{}", w.rank, w.who.worker,
                       w.who.host, w.who.pid, generation_, b.why,
                       w.at_gate ? "" : ", and it has not come to the gate"));
    blamed_[w.who.worker].insert(generation_);
  }
}

void Membership::judge_speed() {
  std::vector<Worker*> members;
  for (auto& [name, w] : workers_)
    if (w.life == Life::kMember && w.pulse.compute_s_per_leaf > 0) members.push_back(&w);
  if (members.size() < 2) return;
  for (Worker* w : members) {
    if (w->pulse.steps_done <= w->judged_steps) continue;
    std::vector<double> others;
    for (const Worker* o : members)
      if (o != w) others.push_back(o->pulse.compute_s_per_leaf);
    const double usual = usual_of(others);
    const auto steps = static_cast<int>(std::min<uint64_t>(4, w->pulse.steps_done - w->judged_steps));
    w->judged_steps = w->pulse.steps_done;
    if (w->pulse.compute_s_per_leaf < config_.straggler_factor * usual) {
      w->slow_steps = 0;
      w->slow_named = false;
      continue;
    }
    w->slow_steps += steps;
    if (w->slow_steps < config_.straggler_steps || w->slow_named) continue;
    w->slow_named = true;
    record("slow", w,
           fmt::format("rank {} ({}, host {}, pid {}) needs {:.3f} s per virtual rank, the others {:.3f} s",
                       w->rank, w->who.worker, w->who.host, w->who.pid, w->pulse.compute_s_per_leaf, usual));
  }
}

void Membership::accuse(const std::string& worker, uint64_t generation, const std::string& accused,
                        const std::string& what, bool ended) {
  notice_standstill();  // who wakes first speaks first
  Worker* by = find(worker);
  Worker* w = find(accused);
  if (by == nullptr || by->life == Life::kGone || generation != generation_) return;
  record("accused", w, fmt::format("{} says: {}", worker, what));
  if (w == nullptr || w->life != Life::kMember) return;
  if (ended) {
    remove(*w, "ended", fmt::format("has ended, as {} saw", worker));
    return try_form();
  }
  ++accusers_[accused];
  if (!broken_) lost_to_ = "link";
  blamed_step_ = std::max(blamed_step_, std::max(by->pulse.step, w->pulse.step));
  break_generation(fmt::format("{} could not reach {}", worker, accused));
}

void Membership::ended(const std::string& worker, int exit_code, int signal) {
  Worker* w = find(worker);
  if (w == nullptr) return;
  if (signal == 0 && exit_code == 0) return remove(*w, "finished", "ended");
  remove(*w, "ended",
         signal != 0 ? fmt::format("was ended by signal {}", signal)
                     : fmt::format("ended with exit code {}", exit_code));
  try_form();
}

void Membership::leave(const std::string& worker, bool finished) {
  Worker* w = find(worker);
  if (w == nullptr) return;
  if (finished && !finished_) {
    finished_ = true;
    record("finished", w, "the run is complete");
  }
  remove(*w, finished ? "finished" : "left", finished ? "finished" : "left");
  try_form();
}

bool Membership::may_commit(const std::string& worker, uint64_t generation, std::string* why) {
  const Worker* w = find(worker);
  if (w != nullptr && w->life == Life::kMember && generation <= generation_) return true;
  *why = w == nullptr ? "this worker is not part of the run"
         : w->life == Life::kGone
             ? w->why
             : fmt::format("generation {} is not one of this run's (now {})", generation, generation_);
  record("fenced-call", w,
         fmt::format("a checkpoint of {} in generation {} was refused: {}", worker, generation, *why));
  return false;
}

void Membership::scale(int workers) {
  if (workers < config_.minimum)
    fail(ErrorKind::kUsage, "scale to {} workers: expected at least the run's minimum of {}", workers,
         config_.minimum);
  record("scale", nullptr, fmt::format("{} wanted, {} before", count_of_workers(workers), config_.target));
  config_.target = workers;
  ++changes_;
}

void Membership::stop(const std::string& why) {
  if (stopping_) return;
  stopping_ = true;
  stop_why_ = why;
  record("stop", nullptr, why);
}

void Membership::retire(const std::string& why) {
  record("retired", nullptr, why);
  for (auto& [name, w] : workers_) remove(w, "fenced", why);
  stop(why);
}

void Membership::note(const std::string& kind, const std::string& worker, const std::string& text) {
  record(kind, find(worker), text);
}

// When the judge itself stood still (a paused machine, a starved process) nobody could be heard: that time does not count.
void Membership::notice_standstill() {
  const double now = clock_.now_s(), slept = last_awake_s_ ? now - *last_awake_s_ : 0;
  last_awake_s_ = now;
  if (!finished_ && !workers_.empty()) account_s_[broken_ ? lost_to_ : "training"] += slept;
  if (slept <= kOwnSleep_s) return;
  for (auto& [name, w] : workers_) w.last_heard_s = std::min(now, w.last_heard_s + slept);
  broken_since_s_ = std::min(now, broken_since_s_ + slept);
  if (slept > kStandstill_s) stood_still_s_ = slept, awake_since_s_ = now;
}

void Membership::tick() {
  notice_standstill();
  const double now = clock_.now_s();
  for (auto& [name, w] : workers_) {
    if (w.life == Life::kGone) continue;
    const double quiet = now - w.last_heard_s;
    if (quiet > config_.heartbeat_timeout_s * (w.must_find_us ? kTimesToFindUs : 1))
      remove(
          w, "silent",
          fmt::format("gave no sign of life for {:.1f} s (stopped, cut off or its machine is gone)", quiet));
    else if (broken_ && generation_ > 0 && w.life == Life::kMember && !w.at_gate &&
             now - broken_since_s_ > config_.regroup_timeout_s)
      remove(w, "stuck",
             fmt::format("is alive but did not leave its step within {:.1f} s", now - broken_since_s_));
  }
  try_form();
}

bool Membership::nobody_left() const {
  return !workers_.empty() && std::all_of(workers_.begin(), workers_.end(),
                                          [](const auto& w) { return w.second.life == Life::kGone; });
}

std::vector<Event> Membership::events_after(int64_t number) const {
  std::vector<Event> out;
  for (const Event& e : events_)
    if (e.number > number) out.push_back(e);
  return out;
}

namespace {
// What a worker says about its time: an object of numbers. Anything else, of another version or worse, counts as nothing said.
json anatomy_of(const std::string& text) {
  constexpr size_t kLongest = 4096;
  json said = text.size() > kLongest ? json() : json::parse(text, nullptr, false);
  json out = json::object();
  if (said.is_object())
    for (const auto& [name, seconds] : said.items())
      if (seconds.is_number()) out[name] = seconds;
  return out;
}
}  // namespace

std::string Membership::status_json() const {
  json workers = json::array();
  const double now = clock_.now_s();
  for (const auto& [name, w] : workers_) {
    const char* life = w.life == Life::kMember    ? (w.at_gate ? "regrouping" : "member")
                       : w.life == Life::kJoining ? (w.at_gate ? "spare" : "joining")
                       : w.released               ? "left"
                                                  : "fenced";
    workers.push_back({{"worker", name},
                       {"host", w.who.host},
                       {"pid", w.who.pid},
                       {"rank", w.rank},
                       {"life", life},
                       {"step", w.pulse.step},
                       {"phase", w.pulse.phase},
                       {"phase_age_s", w.pulse.phase_age_s},
                       {"last_call", w.pulse.last_call},
                       {"compute_s_per_leaf", w.pulse.compute_s_per_leaf},
                       {"silent_s", w.life == Life::kGone ? 0.0 : now - w.last_heard_s},
                       {"slow", w.slow_named},
                       {"anatomy_s", anatomy_of(w.pulse.anatomy)},
                       {"why", w.why}});
  }
  return json{{"run", config_.run},       {"generation", generation_},  {"broken", broken_},
              {"target", config_.target}, {"minimum", config_.minimum}, {"finished", finished_},
              {"account_s", account_s_},  {"workers", workers}}
      .dump();
}

std::string Membership::save() const {
  json members = json::array(), gone = json::array();
  for (const Member& m : members_) {
    const auto it = workers_.find(m.who.worker);
    if (it != workers_.end() && it->second.life == Life::kMember)
      members.push_back({{"who", to_json(m.who)}, {"rank", m.rank}});
  }
  for (const auto& [name, w] : workers_)
    if (w.life == Life::kGone)
      gone.push_back({{"who", to_json(w.who)}, {"why", w.why}, {"released", w.released}});
  return json{{"format", 1},       {"run", config_.run},       {"generation", generation_},
              {"broken", broken_}, {"target", config_.target}, {"members", members},
              {"gone", gone},      {"finished", finished_},    {"account_s", account_s_}}
      .dump(1);
}

void Membership::load(const std::string& text) {
  try {
    const json j = json::parse(text);
    if (j.at("format") != 1 || j.at("run") != config_.run)
      fail(ErrorKind::kData, "coordinator state: expected format 1 of run '{}', found format {} of run {}",
           config_.run, j.at("format").dump(), j.at("run").dump());
    generation_ = j.at("generation");
    config_.target = j.at("target");
    finished_ = j.at("finished");
    if (j.contains("account_s")) account_s_ = j.at("account_s");
    broken_ = j.at("broken").get<bool>() || generation_ == 0;
    broken_since_s_ = clock_.now_s();
    broken_why_ = "the coordinator came back";
    for (const json& m : j.at("members")) {
      Worker& w = know(worker_from(m.at("who")));
      if (w.life ==
          Life::kGone) {  // of another attempt: its memory is lost to the run, its checkpoints are not
        broken_ = true;
        no_generation_before_s_ = clock_.now_s() + kZombiesHear_s;
        continue;
      }
      w.life = Life::kMember;
      w.must_find_us = true;
      w.rank = m.at("rank");
      w.formed = generation_;
      members_.push_back({w.who, w.rank, w.rank, ""});
    }
    for (const json& g : j.at("gone")) {
      Worker& w = know(worker_from(g.at("who")));
      w.life = Life::kGone;
      w.why = g.at("why");
      w.released = g.at("released");
    }
    record("note", nullptr, fmt::format("the coordinator came back in generation {}", generation_));
  } catch (const json::exception& e) {
    fail(ErrorKind::kData,
         "coordinator state is damaged: {}. Remove the file; the live workers regroup by themselves.",
         e.what());
  }
}

}  // namespace stoker::elastic
