// base/edit_distance.h
// Levenshtein distance of two names: what "did you mean" is ranked by. O(|a| |b|) time, O(|b|) memory.
#pragma once
#include <algorithm>
#include <cstddef>
#include <string_view>

namespace stoker {

size_t edit_distance(std::string_view a, std::string_view b);

// The one of `known` (a range of strings, not empty) that is nearest to `name`; the first of equals.
template <typename Names>
const auto& nearest_name(std::string_view name, const Names& known) {
  return *std::min_element(known.begin(), known.end(), [&](const auto& a, const auto& b) {
    return edit_distance(a, name) < edit_distance(b, name);
  });
}

}  // namespace stoker
