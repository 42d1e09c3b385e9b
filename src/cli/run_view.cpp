#include "cli/run_view.h"

#include "base/clock.h"

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
}  // namespace

RunView::RunView(const net::Address& address, net::Tls tls, const std::string& token)
    : client_(address, tls, token) {}

std::vector<std::string> RunView::fenced() {
  refresh();
  std::vector<std::string> out;
  for (const auto& w : status_["workers"])
    if (w["life"] == "fenced") out.push_back(w["worker"]);
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
      status_ = nlohmann::json::parse(client_.status(std::numeric_limits<int64_t>::max() - 1));
  } catch (const Error&) {  // away: what we know stays
  }
}

cluster::LaunchHooks RunView::hooks(std::unique_ptr<RunView>& view,
                                    std::function<void(const std::string&)> say) {
  cluster::LaunchHooks hooks;
  hooks.worker_ended = [&view](const cluster::ProcessExit& e) { view->ended(e); };
  hooks.fenced_workers = [&view] { return view->fenced(); };
  hooks.run_finished = [&view] { return view->finished(); };
  hooks.stop = [&view](const std::string& why) { view->stop(why); };
  hooks.coordinator_answers = [&view] { return view->answers(); };
  hooks.say = std::move(say);
  return hooks;
}

}  // namespace stoker::cli
