// Any bytes as a run's recipe, lines after the first that begins with "--set " as overrides: a Usage, Data or Storage error, or
// a recipe with an identity. The files that it may name are in memory: one config.json.
#include "train/recipe.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "io/memory_file_system.h"

namespace {

std::vector<std::string> split_overrides(std::string& text) {
  constexpr std::string_view kSet = "--set ";
  std::vector<std::string> out;
  size_t at = text.starts_with(kSet) ? 0 : text.find("\n--set ");
  if (at == std::string::npos) return out;
  const std::string rest = text.substr(at == 0 && text.starts_with(kSet) ? 0 : at + 1);
  text.resize(at);
  for (size_t begin = 0; begin < rest.size();) {
    const size_t end = std::min(rest.find('\n', begin), rest.size());
    std::string line = rest.substr(begin, end - begin);
    if (line.starts_with(kSet)) line.erase(0, kSet.size());
    out.push_back(std::move(line));
    begin = end + 1;
  }
  return out;
}

stoker::io::MemoryFileSystem& files() {
  static stoker::io::MemoryFileSystem fs;
  static const bool filled = [] {
    fs.make_dirs("m");
    const auto out = fs.create("m/config.json");
    out->append(
        R"({"model_type":"llama","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"intermediate_size":128,)"
        R"("vocab_size":256,"max_position_embeddings":128,"rms_norm_eps":1e-5,"architectures":["LlamaForCausalLM"]})");
    out->close();
    return true;
  }();
  static_cast<void>(filled);
  return fs;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  std::string text(reinterpret_cast<const char*>(data), size);
  const auto overrides = split_overrides(text);
  try {
    const auto recipe = train::parse_recipe(text, "fuzz.toml", overrides, files());
    STOKER_CHECK(!recipe.identity().empty());
    STOKER_CHECK(recipe.global_batch % (recipe.micro_batch * recipe.virtual_ranks) == 0);
    train::feed_options(recipe);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kUsage && e.kind() != ErrorKind::kData && e.kind() != ErrorKind::kStorage)
      throw;
  }
  return 0;
}
