#include "cli/command.h"

namespace stoker::cli {

void add_data(Command& app) {
  auto* data = app.add_subcommand("data", "Raw text to clean, tokenised, versioned training data");
  data->require_subcommand(1, 1);
  data->footer(
      "Examples:\n"
      "  stoker data prepare docs/ --out docs.stk --held-out 0.02      text to a dataset\n"
      "  stoker data build recipe.toml                                 cleaned and deduplicated first\n"
      "  stoker data verify docs.stk");
  add_data_shards(*data);
  add_data_lineage(*data);
  add_data_build(*data);
  add_data_feed(*data);
  add_data_tokenizer(*data);
}

}  // namespace stoker::cli
