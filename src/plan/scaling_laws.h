// plan/scaling_laws.h
// What a run will learn: loss by parameters and tokens from published fits, compute-optimal sizes, what
// repeated data is worth, and what the next dollar buys. Law          L(N, D) = E + A / N^alpha + B / D^beta,
// in nats per token of the fit's own held-out text: losses of
//              different fits, tokenizers and data sets do not compare; differences within one fit do.
// Repetition   D' = U + U R* (1 - exp(-R / R*)) with U unique tokens and R = D / U - 1 repeats; excess
// parameters alike Range        the spread over the fits; and for one fit its published standard errors where
// it has them Errors       Usage: parameters, tokens or budgets that are not positive and finite Source
// Hoffmann et al. 2022 (approach 3), arXiv:2203.15556; Besiroglu et al. 2024, arXiv:2404.10102;
//              Muennighoff et al. 2023, arXiv:2305.16264
#pragma once
#include <string_view>
#include <vector>

#include "plan/band.h"

namespace stoker::plan {

struct LossFit {
  std::string_view name, source;
  double e = 0, a = 0, b = 0, alpha = 0, beta = 0;
};
enum class Fit { kHoffmann, kEpoch, kMuennighoff };
const LossFit& loss_fit(Fit fit);
const std::vector<Fit>& all_fits();

inline constexpr double kRepeatHalfLife = 15.387756;  // R*_D of Muennighoff et al.
inline constexpr double kExcessHalfLife = 5.309743;   // R*_N

double loss(const LossFit& fit, double parameters, double tokens);
// Tokens that are worth as much as `tokens` drawn from `unique` different ones.
double effective_tokens(double tokens, double unique);
// Loss with repetition: effective tokens, and parameters discounted beyond what `unique` tokens can use.
double data_limited_loss(const LossFit& fit, double parameters, double tokens, double unique);

struct ComputeOptimal {
  double parameters = 0, tokens = 0, loss = 0;
};
// The best split of `flops` = 6 N D under one fit, in closed form.
ComputeOptimal compute_optimal(const LossFit& fit, double flops);

struct Returns {
  Band<double> loss;                  // over the fits, repetition included
  Band<double> compute_optimal_loss;  // what the same FLOPs could have reached
  Band<double> optimal_parameters, optimal_tokens;
  double epochs = 1;  // tokens / unique
  double effective_tokens = 0;
  bool more_than_exists = false;      // unique tokens above the mid estimate of public text
  Band<double> loss_per_doubling;     // loss saved by twice the tokens
  Band<double> dollars_per_millinat;  // at the margin of tokens: cost of the next 0.001 of loss; needs cost
};
// `unique` 0: as many as tokens. `dollars` of the whole run; 0: unknown.
Returns returns(double parameters, double tokens, double unique, double dollars, double public_tokens);

}  // namespace stoker::plan
