#include <fmt/core.h>

#include <exception>
#include <new>

#include "base/error.h"
#include "base/stop.h"
#include "cli/command.h"

namespace {

int report(stoker::ErrorKind kind, const char* message) {
  fmt::print(stderr, "stoker: {} error: {}\n", stoker::to_string(kind), message);
  return stoker::exit_code(kind);
}

int run(int argc, char** argv) {
  using namespace stoker::cli;
  Command app{"Stoker: an AI training factory in one program"};
  app.require_subcommand(1, 1);
  add_data(app);
  add_ckpt(app);
  add_doctor(app);
  add_train(app);
  add_eval(app);
  add_sample(app);
  add_report(app);
  add_launch(app);
  add_join(app);
  add_scale(app);
  add_chaos(app);
  add_top(app);
  add_run_trace(app);
  add_coordinator(app);
  add_bench(app);
  add_plan(app);
  return app.run(argc, argv, "stoker " STOKER_VERSION);
}

}  // namespace

int main(int argc, char** argv) {
  stoker::install_stop_handler();
  try {
    return run(argc, argv);
  } catch (const stoker::Error& e) {
    return report(e.kind(), e.what());
  } catch (const std::bad_alloc&) {
    return report(stoker::ErrorKind::kDevice,
                  "out of memory. Use a smaller model, micro-batch or sequence length.");
  } catch (const std::exception& e) {
    return report(stoker::ErrorKind::kInternal, e.what());
  }
}
