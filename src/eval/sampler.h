// eval/sampler.h
// Draws the next token from logits: temperature, then the top_k most likely, then the smallest set of probability >= top_p.
// Temperature 0 takes the most likely (the lowest id of equals). Draw number n of a seed is a pure function of (seed, n).
// Numbers   softmax and sums in f64; of equal logits the lower id counts as the likelier
// Cost      one sort of the vocabulary (of the top_k when given) a draw
// Source    the order and the cuts of transformers' generate; tests/golden/make_sampling.py compares them
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace stoker::eval {

struct SamplerSettings {
  double temperature = 0.8;
  int64_t top_k = 0;  // 0: all
  double top_p = 1;
  uint64_t seed = 1;
};

struct Candidate {
  int32_t token;
  double probability;
};

void validate(const SamplerSettings& settings);  // Usage: names the flag

// What sample() draws from: the tokens that the cuts leave, likeliest first; the probabilities sum to 1.
std::vector<Candidate> candidates(std::span<const float> logits, const SamplerSettings& settings);
int32_t sample(std::span<const float> logits, const SamplerSettings& settings, uint64_t draw);

}  // namespace stoker::eval
