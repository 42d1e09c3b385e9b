// spec/presets.h
// Published models by name, and the shapes that Stoker's own benchmarks use. Parameter counts are tested
// against the published ones.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/model_spec.h"

namespace stoker {

// Throws Usage listing the names that exist, the nearest first.
ModelSpec model_preset(std::string_view name);
std::vector<std::string> model_preset_names();  // in the order of the families

}  // namespace stoker
