#include "plan/scaling_laws.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace stoker::plan {
namespace {

constexpr LossFit kFits[] = {
    {"Hoffmann", "arXiv:2203.15556, approach 3, unrounded", 1.6934, 406.4, 410.7, 0.3392, 0.2849},
    {"Epoch replication", "arXiv:2404.10102", 1.8172, 482.01, 2085.43, 0.3478, 0.3658},
    {"Muennighoff", "arXiv:2305.16264", 1.87, 521, 1488, 0.3526596, 0.3526596},
};

void positive(double value, const char* name) {
  if (!(value > 0) || !std::isfinite(value))
    fail(ErrorKind::kUsage, "{} = {}: expected a finite number above 0", name, value);
}

// Parameters that can make use of `tokens` under the fit: the N for which (N, tokens) is compute-optimal.
double parameters_for(const LossFit& fit, double tokens) {
  // alpha A N^-alpha = beta B D^-beta along the optimal frontier.
  return std::pow(fit.alpha * fit.a / (fit.beta * fit.b) * std::pow(tokens, fit.beta), 1 / fit.alpha);
}

Band<double> spread(const std::vector<double>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  return {*low, sorted[sorted.size() / 2], *high};
}

}  // namespace

const LossFit& loss_fit(Fit fit) { return kFits[static_cast<size_t>(fit)]; }

const std::vector<Fit>& all_fits() {
  static const std::vector<Fit> fits{Fit::kHoffmann, Fit::kEpoch, Fit::kMuennighoff};
  return fits;
}

double loss(const LossFit& fit, double parameters, double tokens) {
  positive(parameters, "parameters");
  positive(tokens, "tokens");
  return fit.e + fit.a / std::pow(parameters, fit.alpha) + fit.b / std::pow(tokens, fit.beta);
}

double effective_tokens(double tokens, double unique) {
  positive(tokens, "tokens");
  positive(unique, "unique tokens");
  if (tokens <= unique) return tokens;
  const double repeats = tokens / unique - 1;
  return unique * (1 + kRepeatHalfLife * -std::expm1(-repeats / kRepeatHalfLife));
}

double data_limited_loss(const LossFit& fit, double parameters, double tokens, double unique) {
  positive(parameters, "parameters");
  const double worth = effective_tokens(tokens, unique);
  double n = parameters;
  if (tokens > unique) {
    const double usable = std::min(parameters, parameters_for(fit, unique));
    const double excess = parameters / usable - 1;
    n = usable * (1 + kExcessHalfLife * -std::expm1(-excess / kExcessHalfLife));
  }
  return loss(fit, n, worth);
}

ComputeOptimal compute_optimal(const LossFit& fit, double flops) {
  positive(flops, "compute");
  // Lagrange: alpha A N^-alpha = beta B D^-beta with N D = C / 6.
  const double g = std::pow(fit.alpha * fit.a / (fit.beta * fit.b), 1 / (fit.alpha + fit.beta));
  ComputeOptimal best;
  best.parameters = g * std::pow(flops / 6, fit.beta / (fit.alpha + fit.beta));
  best.tokens = flops / 6 / best.parameters;
  best.loss = loss(fit, best.parameters, best.tokens);
  return best;
}

Returns returns(double parameters, double tokens, double unique, double dollars, double public_tokens) {
  positive(parameters, "parameters");
  positive(tokens, "tokens");
  if (unique == 0) unique = tokens;
  positive(unique, "unique tokens");
  if (!(dollars >= 0)) fail(ErrorKind::kUsage, "cost = {}: it cannot be negative", dollars);
  Returns out;
  out.epochs = tokens / std::min(unique, tokens);
  out.effective_tokens = effective_tokens(tokens, unique);
  out.more_than_exists = std::min(unique, tokens) > public_tokens;
  std::vector<double> at, best, n, d, doubling, marginal;
  for (const Fit which : all_fits()) {
    const LossFit& fit = loss_fit(which);
    const double here = data_limited_loss(fit, parameters, tokens, unique);
    const ComputeOptimal optimal = compute_optimal(fit, 6 * parameters * tokens);
    at.push_back(here);
    best.push_back(optimal.loss);
    n.push_back(optimal.parameters);
    d.push_back(optimal.tokens);
    // The next tokens repeat when these did; a fresh set grows with the demand.
    const auto pool = [&](double t) { return tokens > unique ? unique : t; };
    doubling.push_back(here - data_limited_loss(fit, parameters, 2 * tokens, pool(2 * tokens)));
    if (dollars > 0) {
      const double step = 1e-3;  // of the tokens, hence of the cost
      const double saved =
          here - data_limited_loss(fit, parameters, tokens * (1 + step), pool(tokens * (1 + step)));
      if (saved > 0) marginal.push_back(dollars * step / saved * 1e-3);
    }
  }
  out.loss = spread(at);
  out.compute_optimal_loss = spread(best);
  out.optimal_parameters = spread(n);
  out.optimal_tokens = spread(d);
  out.loss_per_doubling = spread(doubling);
  if (!marginal.empty()) out.dollars_per_millinat = spread(marginal);
  return out;
}

}  // namespace stoker::plan
