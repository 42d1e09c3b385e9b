// optim/schedule.h
// The learning rate of a step: warm-up, then cosine or linear decay to min_ratio * peak, or warm-up-stable-decay.
//   step counts from 1. warm-up: peak * step / warmup_steps.
//   kCosine, kLinear: decay from the end of warm-up to `steps`.   kWsd: peak until steps - decay_steps, then 1 - sqrt(progress)
//   kConstant: peak after warm-up
// Source  cosine: Loshchilov & Hutter 2016, arXiv:1608.03983; WSD with 1-sqrt: Hägele et al. 2024, arXiv:2405.18392
#pragma once
#include <cstdint>
#include <string_view>

namespace stoker::optim {

enum class ScheduleKind { kConstant, kCosine, kLinear, kWsd };

struct Schedule {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 3e-4, min_ratio = 0.1;
  int64_t steps = 1, warmup_steps = 0, decay_steps = 0;
};

double learning_rate(const Schedule& schedule, int64_t step);
ScheduleKind schedule_from_string(std::string_view name);  // Usage: names the choices
std::string_view to_string(ScheduleKind kind);

}  // namespace stoker::optim
