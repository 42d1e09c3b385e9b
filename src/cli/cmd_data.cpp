#include "cli/command.h"

namespace stoker::cli {

void add_data(Command& app) {
  auto* data = app.add_subcommand("data", "Raw text to clean, tokenised, versioned training data");
  data->require_subcommand(1, 1);
  add_data_shards(*data);
  add_data_lineage(*data);
  add_data_build(*data);
  add_data_feed(*data);
  add_data_tokenizer(*data);
}

}  // namespace stoker::cli
