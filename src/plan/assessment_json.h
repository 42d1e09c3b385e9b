// plan/assessment_json.h
// A plan as JSON, keys as documented in docs/json.md; units are in the names, bands are {low, mid, high}.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "plan/assess.h"
#include "plan/levers.h"

namespace stoker::plan {

nlohmann::json to_json(const Assessment& assessment);
nlohmann::json to_json(const LayoutCandidate& candidate);
nlohmann::json to_json(const PathCost& cost);
nlohmann::json to_json(const Lever& lever);

}  // namespace stoker::plan
