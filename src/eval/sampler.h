// eval/sampler.h
// Draws the next token from logits: temperature, then the top_k most likely, then the smallest set of probability >= top_p.
// Temperature 0 takes the most likely (the lowest id of equals). Draw number n of a seed is a pure function of (seed, n).
#pragma once
#include <cstdint>
#include <span>

namespace stoker::eval {

struct SamplerSettings {
  double temperature = 0.8;
  int64_t top_k = 0;  // 0: all
  double top_p = 1;
  uint64_t seed = 1;
};

void validate(const SamplerSettings& settings);  // Usage: names the flag
int32_t sample(std::span<const float> logits, const SamplerSettings& settings, uint64_t draw);

}  // namespace stoker::eval
