// Any bytes as a plan file, lines after the first that begins with "--set " as settings: a Usage or Data error, or a
// request whose hardware and model hold together.
#include "plan/plan_file.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace {

std::vector<std::string> split_settings(std::string& text) {
  constexpr std::string_view kSet = "--set ";
  std::vector<std::string> settings;
  std::string kept;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    if (line.starts_with(kSet)) settings.push_back(line.substr(kSet.size()));
    else kept += line + '\n';
    begin = end + 1;
  }
  text = kept;
  return settings;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  std::string text(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> settings = split_settings(text);
  try {
    const plan::PlanRequest r = plan::parse_plan(text, "fuzz.toml", settings);
    STOKER_CHECK(r.hardware.accelerators >= 1);
    STOKER_CHECK(r.run.model.layers >= 1 && r.run.model.hidden >= 1);
    STOKER_CHECK(!(r.tokens < 0) && !(r.utilisation < 0));
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kUsage && e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
