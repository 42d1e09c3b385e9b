#include <fmt/core.h>

#include <exception>
#include <new>

#include "base/error.h"
#include "base/stop.h"
#include "base/threads.h"
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
  app.footer(
      "Examples, from text to a model:\n"
      "  stoker data prepare docs/ --out docs.stk --vocab-size 4096 --held-out 0.02\n"
      "  stoker train recipe.toml\n"
      "  stoker eval run --data docs.stk\n"
      "  stoker sample run --prompt \"The\"\n"
      "  stoker ckpt export run --out model\n"
      "stoker COMMAND --help has examples of each. Exit codes: 0 done, 64 usage, 65 data, 69 a worker is "
      "gone, 70 bug,\n"
      "71 device or memory, 74 storage, 75 stopped (the same command continues), 76 numbers diverged");
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
  add_flight(app);
  add_run_trace(app);
  add_coordinator(app);
  add_bench(app);
  add_plan(app);
  return app.run(argc, argv, "stoker " STOKER_VERSION);
}

}  // namespace

int main(int argc, char** argv) {
  stoker::bound_spinning(argv);
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
