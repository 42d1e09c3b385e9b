// train/loss_watch.h
// Says whether a step's loss is sound: finite, and not more than sigma standard deviations above the mean of the last `window`
// accepted losses. Pure function of the losses it was told, so every worker and every resume decides alike.
#pragma once
#include <cstdint>
#include <deque>
#include <string>

namespace stoker::train {

enum class Verdict { kSound, kSpike, kNotFinite };

class LossWatch {
 public:
  LossWatch(int64_t window, double sigma) : window_(window), sigma_(sigma) {}
  Verdict judge(double loss, double gradient_norm) const;
  void accept(double loss);
  std::string describe(
      double loss) const;  // "loss 9.1 is 7.2 standard deviations above the last 64 (mean 3.2)"

  // Hexadecimal floats separated by spaces: for the checkpoint.
  std::string state() const;
  void restore(const std::string& state);

 private:
  void moments(double& mean, double& deviation) const;
  int64_t window_;
  double sigma_;
  std::deque<double> losses_;
};

}  // namespace stoker::train
