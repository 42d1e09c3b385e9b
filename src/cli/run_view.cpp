#include "cli/run_view.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "base/clock.h"
#include "base/progress.h"

namespace stoker::cli {
namespace {
template <typename Call>
void attempt(const Call& call) {
  try {
    call();
  } catch (const Error& e) {
    fmt::print(stderr, "stoker: {}\n", e.what());
  }
}

constexpr double kFresh_s = 0.5;  // older than this, what is known says nothing about now
constexpr double kRateOver_s = 15, kLineEvery_s = 60, kDrawEvery_s = 0.25;
constexpr const char* kClearLine = "\r\033[K";

bool progress_wanted() {
  const char* wanted = std::getenv("STOKER_PROGRESS");
  return wanted == nullptr || std::string_view(wanted) != "0";
}
}  // namespace

RunView::RunView(const net::Address& address, net::Tls tls, const std::string& token, bool narrate)
    : client_(address, tls, token),
      narrate_(narrate && progress_wanted()),
      terminal_(isatty(STDERR_FILENO) != 0),
      seen_(narrate_ ? 0 : std::numeric_limits<int64_t>::max() - 1) {}

RunView::~RunView() {
  if (narrate_ && terminal_) fmt::print(stderr, "{}", kClearLine);
}

void RunView::say(const std::string& line) {
  fmt::print(stderr, "{}stoker: {}\n", isatty(STDERR_FILENO) ? kClearLine : "", line);
}

std::vector<std::string> RunView::fenced() {
  refresh();
  std::vector<std::string> out;
  for (const auto& w : status_["workers"])
    if (w["life"] == "fenced") out.push_back(w["worker"]);
  return out;
}
std::optional<cluster::Demand> RunView::demand(const std::vector<std::string>& own) {
  refresh();
  if (monotonic_s() > known_s_ + kFresh_s || !status_.contains("target")) return {};
  cluster::Demand out{status_["target"].get<int>(), 0};
  for (const auto& w : status_["workers"])
    out.others += w["life"] != "fenced" && w["life"] != "left" &&
                  std::find(own.begin(), own.end(), w["worker"].get<std::string>()) == own.end();
  return out;
}
bool RunView::finished() {
  refresh();
  return status_.value("finished", false);
}
const nlohmann::json& RunView::status() {
  refresh();
  return status_;
}
void RunView::ended(const cluster::ProcessExit& e) {
  attempt([&] { client_.exited(e.name, e.exit_code, e.signal); });
}
void RunView::stop(const std::string& why) {
  attempt([&] { client_.stop(why); });
}

void RunView::refresh() {
  if (monotonic_s() < next_s_) return;
  next_s_ = monotonic_s() + 0.1;
  try {
    if (client_.answers(0.5))
      status_ = nlohmann::json::parse(client_.status(seen_)), known_s_ = monotonic_s();
  } catch (const Error&) {  // away: what we know stays
    return;
  }
  if (!narrate_) return;
  tell_events();
  tell_progress();
}

void RunView::tell_events() {
  if (!status_.contains("events")) return;
  for (const auto& e : status_["events"]) {
    seen_ = std::max(seen_, e["number"].get<int64_t>());
    const std::string kind = e["kind"];
    if (kind == "joined" || kind == "finished" || kind == "fenced-call") continue;
    if (kind == "threads" && !std::exchange(threads_untold_, false))
      continue;            // each replacement says it again
    if (kind == "slow") {  // a worker that hovers about the limit would be told of at every step
      double& told_s = slow_told_s_[e["worker"]];
      if (told_s != 0 && monotonic_s() < told_s + kLineEvery_s) continue;
      told_s = monotonic_s();
    }
    say(fmt::format("{} {:<9} {}", human_time(e["unix_s"]), kind, e["text"].get<std::string>()));
  }
  status_.erase("events");
}

void RunView::tell_progress() {
  const double now = monotonic_s();
  if (now < next_line_s_ || !status_.contains("target")) return;
  int members = 0;
  int64_t step = 0;
  for (const auto& w : status_["workers"])
    if (w["life"] == "member") {
      ++members;
      step = std::max(step, w["step"].get<int64_t>());
    }
  next_line_s_ = now + (terminal_ ? kDrawEvery_s : kLineEvery_s);
  if (step == 0) return;
  if (!marks_.empty() && step < marks_.back().step) marks_.clear();  // rolled back
  marks_.push_back({now, step});
  const double window = terminal_ ? kRateOver_s : kLineEvery_s * 1.5;
  while (marks_.size() > 2 && marks_.front().at_s < now - window) marks_.pop_front();
  const double took = now - marks_.front().at_s;
  const std::string rate =
      took > 1 ? fmt::format("  {:.2f} steps/s", static_cast<double>(step - marks_.front().step) / took) : "";
  const std::string line = fmt::format("step {}{}  {} of {} workers  generation {}{}", step, rate, members,
                                       status_["target"].get<int>(), status_["generation"].get<uint64_t>(),
                                       status_["broken"].get<bool>() ? "  regrouping" : "");
  if (terminal_) fmt::print(stderr, "{}{}", kClearLine, line);
  else fmt::print(stderr, "stoker: {}\n", line);
}

cluster::LaunchHooks RunView::hooks(std::unique_ptr<RunView>& view,
                                    std::function<void(const std::string&)> say) {
  cluster::LaunchHooks hooks;
  hooks.worker_ended = [&view](const cluster::ProcessExit& e) { view->ended(e); };
  hooks.fenced_workers = [&view] { return view->fenced(); };
  hooks.run_finished = [&view] { return view->finished(); };
  hooks.stop = [&view](const std::string& why) { view->stop(why); };
  hooks.demand = [&view](const std::vector<std::string>& own) { return view->demand(own); };
  hooks.coordinator_answers = [&view] { return view->answers(); };
  hooks.say = std::move(say);
  return hooks;
}

}  // namespace stoker::cli
