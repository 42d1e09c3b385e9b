#include "cli/command.h"

namespace stoker::cli {

void add_bench(Command& app) {
  auto* bench = app.add_subcommand("bench", "Measure this machine and this program, as ratios in one run");
  bench->require_subcommand(1, 1);
  bench->footer("Examples:\n  stoker bench step\n  stoker bench tokenizer corpus.txt --vocab-size 32768");
  add_bench_step(*bench);
  add_bench_comm(*bench);
  add_bench_feed(*bench);
  add_bench_tokenizer(*bench);
  add_bench_plan(*bench);
}

}  // namespace stoker::cli
