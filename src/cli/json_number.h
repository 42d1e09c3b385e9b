// cli/json_number.h
// JSON has neither NaN nor infinity: what was not measured or has no end is null.
#pragma once
#include <cmath>
#include <nlohmann/json.hpp>

namespace stoker::cli {

inline nlohmann::json number_or_null(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

}  // namespace stoker::cli
