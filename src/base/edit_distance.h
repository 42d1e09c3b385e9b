// base/edit_distance.h
// Levenshtein distance of two names: what "did you mean" is ranked by. O(|a| |b|) time, O(|b|) memory.
#pragma once
#include <cstddef>
#include <string_view>

namespace stoker {

size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace stoker
