#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace stoker::optim {

double learning_rate(const Schedule& s, int64_t step) {
  if (step <= s.warmup_steps) return s.peak * static_cast<double>(step) / static_cast<double>(s.warmup_steps);
  const int64_t begin = s.kind == ScheduleKind::kWsd ? s.steps - s.decay_steps : s.warmup_steps;
  if (s.kind == ScheduleKind::kConstant || step <= begin) return s.peak;
  const double progress = std::min(
      1.0, static_cast<double>(step - begin) / static_cast<double>(std::max<int64_t>(1, s.steps - begin)));
  double fall = 1 - progress;
  if (s.kind == ScheduleKind::kCosine) fall = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  if (s.kind == ScheduleKind::kWsd) fall = 1 - std::sqrt(progress);
  return s.peak * (s.min_ratio + (1 - s.min_ratio) * fall);
}

std::string_view to_string(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::kConstant:
      return "constant";
    case ScheduleKind::kCosine:
      return "cosine";
    case ScheduleKind::kLinear:
      return "linear";
    case ScheduleKind::kWsd:
      return "wsd";
  }
  return "?";
}

ScheduleKind schedule_from_string(std::string_view name) {
  for (const ScheduleKind k :
       {ScheduleKind::kConstant, ScheduleKind::kCosine, ScheduleKind::kLinear, ScheduleKind::kWsd})
    if (to_string(k) == name) return k;
  fail(ErrorKind::kUsage, "optimizer.schedule is \"{}\": expected constant, cosine, linear or wsd", name);
}

}  // namespace stoker::optim
