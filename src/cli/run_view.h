// cli/run_view.h
// What a launcher knows of its run: asked from the coordinator a few times a second, and kept while it is away.
#pragma once
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cluster/launcher.h"
#include "elastic/worker_link.h"

namespace stoker::cli {

class RunView {
 public:
  RunView(const net::Address& address, net::Tls tls, const std::string& token);
  std::vector<std::string> fenced();
  bool finished();
  const nlohmann::json& status();  // workers; no events
  void ended(const cluster::ProcessExit& exit);
  void stop(const std::string& why);
  bool answers() { return client_.answers(1); }
  elastic::CoordinatorClient& client() { return client_; }
  // The hooks of a launcher that is wired to this view; `say` prints a line.
  static cluster::LaunchHooks hooks(std::unique_ptr<RunView>& view,
                                    std::function<void(const std::string&)> say);

 private:
  void refresh();
  elastic::CoordinatorClient client_;
  nlohmann::json status_ = {{"workers", nlohmann::json::array()}};
  double next_s_ = 0;
};

}  // namespace stoker::cli
