// cli/run_view.h
// What a launcher knows of its run: asked from the coordinator a few times a second, and kept while it is away.
// One that narrates also tells it on stderr: what happened to the workers as lines, and where the run is as a line
// that stays (on a terminal) or comes once a minute (elsewhere; never with STOKER_PROGRESS=0).
#pragma once
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cluster/launcher.h"
#include "elastic/worker_link.h"

namespace stoker::cli {

class RunView {
 public:
  RunView(const net::Address& address, net::Tls tls, const std::string& token, bool narrate = false);
  ~RunView();
  std::vector<std::string> fenced();
  bool finished();
  std::optional<cluster::Demand> demand(
      const std::vector<std::string>& own);  // nothing: the coordinator is away
  const nlohmann::json& status();            // workers; no events
  void ended(const cluster::ProcessExit& exit);
  void stop(const std::string& why);
  bool answers() { return client_.answers(1); }
  elastic::CoordinatorClient& client() { return client_; }
  // The hooks of a launcher that is wired to this view; `say` prints a line.
  static cluster::LaunchHooks hooks(std::unique_ptr<RunView>& view,
                                    std::function<void(const std::string&)> say);
  static void say(const std::string& line);  // "stoker: line", over the line that stays

 private:
  void refresh();
  void tell_events();
  void tell_progress();
  elastic::CoordinatorClient client_;
  nlohmann::json status_ = {{"workers", nlohmann::json::array()}};
  double next_s_ = 0, known_s_ = 0;  // when to ask again; when it was last answered
  const bool narrate_, terminal_;
  int64_t seen_;                               // events up to this number are told
  std::map<std::string, double> slow_told_s_;  // by worker
  bool threads_untold_ = true;
  struct Mark {
    double at_s;
    int64_t step;
  };
  std::deque<Mark> marks_;  // of the last seconds: steps per second
  double next_line_s_ = 0;
};

}  // namespace stoker::cli
