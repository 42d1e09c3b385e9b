// cli/hf_exchange.h
// A checkpoint from a Hugging Face directory, and back.
// Import    reads config.json, safetensors (one file or sharded) and the tokenizer's files; makes <out>/step-00000000, weights in F32
// Export    makes a directory that transformers loads: config.json, generation_config.json, model.safetensors (sharded above
//           max_file_bytes), tokenizer files. It appears complete or not at all. Weights are rounded to `dtype` (nearest even)
// Exact     import then export gives back every tensor's bytes: F32 holds BF16 and F16 without loss, and the type is remembered
// Memory    import: the weights in F32. export: one tensor
// Errors    Usage: out exists, features that are not supported. Data: what is read is damaged. Cancelled: nothing is left behind
#pragma once
#include <string>
#include <vector>

#include "io/file_system.h"

namespace stoker::cli {

struct ExchangeReport {
  std::string out, dtype, weights_hash;
  int64_t parameters = 0;
  uint64_t bytes = 0;
  std::vector<std::string> files, warnings;
};

ExchangeReport import_hugging_face(io::FileSystem& fs, const std::string& directory, const std::string& out);

struct ExportOptions {
  std::string dtype;  // float32, bfloat16, float16; empty: as the checkpoint's model configuration says
  uint64_t max_file_bytes = uint64_t{5} * 1000 * 1000 * 1000;
};
ExchangeReport export_hugging_face(io::FileSystem& fs, const std::string& checkpoint, const std::string& out,
                                   const ExportOptions& options);

}  // namespace stoker::cli
