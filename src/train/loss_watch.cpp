#include "train/loss_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

namespace stoker::train {

void LossWatch::moments(double& mean, double& deviation) const {
  double sum = 0, squares = 0;
  for (double x : losses_) sum += x;
  mean = sum / static_cast<double>(losses_.size());
  for (double x : losses_) squares += (x - mean) * (x - mean);
  // a flat history would call any noise a spike: at least 1 % of the mean
  deviation = std::max(std::sqrt(squares / static_cast<double>(losses_.size())), 0.01 * std::abs(mean));
}

Verdict LossWatch::judge(double loss, double gradient_norm) const {
  if (!std::isfinite(loss) || !std::isfinite(gradient_norm)) return Verdict::kNotFinite;
  if (sigma_ <= 0 || static_cast<int64_t>(losses_.size()) < window_) return Verdict::kSound;
  double mean, deviation;
  moments(mean, deviation);
  return loss > mean + sigma_ * deviation ? Verdict::kSpike : Verdict::kSound;
}

void LossWatch::accept(double loss) {
  losses_.push_back(loss);
  if (static_cast<int64_t>(losses_.size()) > window_) losses_.pop_front();
}

std::string LossWatch::describe(double loss) const {
  if (losses_.empty() || !std::isfinite(loss)) return fmt::format("loss is {}", loss);
  double mean, deviation;
  moments(mean, deviation);
  return fmt::format("loss {:.4f} is {:.1f} standard deviations above the last {} (mean {:.4f})", loss,
                     (loss - mean) / deviation, losses_.size(), mean);
}

std::string LossWatch::state() const {
  std::string out;
  for (double x : losses_) out += fmt::format("{:a} ", x);
  return out;
}

void LossWatch::restore(const std::string& state) {
  losses_.clear();
  std::istringstream in(state);
  for (std::string word; in >> word;) losses_.push_back(std::strtod(word.c_str(), nullptr));
}

}  // namespace stoker::train
