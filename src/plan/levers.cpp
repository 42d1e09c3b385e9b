#include "plan/levers.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/error.h"

namespace stoker::plan {
namespace {

PlanInput input_of(const Assessment& a, const RunSpec& run) {
  PlanInput input;
  input.run = run;
  input.hardware = a.request.hardware;
  input.engine = a.request.engine;
  input.release = a.request.release;
  input.score_scale = a.request.score_scale;
  input.scan_elements = a.request.scan_elements;
  return input;
}

Efficiency efficiency_of(const Assessment& a) {
  return fitted_efficiency().resolve(a.request.hardware.accelerator.family, a.request.engine,
                                     a.request.release);
}

class Puller {
 public:
  explicit Puller(const Assessment& a) : base_(a), efficiency_(efficiency_of(a)) {}

  Lever begin(std::string name, std::string what, std::string source) const {
    Lever lever;
    lever.name = std::move(name);
    lever.what = std::move(what);
    lever.source = std::move(source);
    return lever;
  }
  Lever refuse(Lever lever, std::string reason) const {
    lever.applies = false;
    lever.reason = std::move(reason);
    return lever;
  }
  // Time, energy and money all follow the time of a step; rent and power are by the hour.
  static void scale(Lever& lever, Band<double> time) { lever.time = lever.energy = lever.money = time; }

  // The best layout under other settings.
  Lever searched(Lever lever, const std::function<void(PlanRequest&)>& change) const {
    PlanRequest request = base_.request;
    change(request);
    try {
      const LayoutChoice choice = choose_layouts(request, 1);
      if (choice.best.empty()) return refuse(std::move(lever), "does not fit in memory");
      compare(lever, choice.best.front());
    } catch (const Error& e) {
      return refuse(std::move(lever), e.what());
    }
    return lever;
  }
  // The same layout with one thing changed.
  Lever changed(Lever lever, const std::function<void(RunSpec&)>& change) const {
    RunSpec run = base_.chosen.run;
    change(run);
    try {
      validate(run);
      compare(lever, {run, predict(input_of(base_, run), efficiency_)});
    } catch (const Error& e) {
      return refuse(std::move(lever), e.what());
    }
    if (over_) return refuse(std::move(lever), "does not fit in memory at this layout");
    return lever;
  }
  // The same run with other efficiencies, one prediction per end of the band.
  Lever tuned(Lever lever, Band<double> value, const std::function<void(Efficiency&, double)>& change) const {
    const auto at = [&](double v) {
      Efficiency e = efficiency_;
      change(e, v);
      return predict(input_of(base_, base_.chosen.run), e).step.total / base_.chosen.prediction.step.total;
    };
    Band<double> time{at(value.low), at(value.mid), at(value.high)};
    if (time.low > time.high) std::swap(time.low, time.high);
    scale(lever, time);
    return lever;
  }
  const StepTime& step() const { return base_.chosen.prediction.step; }

 private:
  void compare(Lever& lever, const LayoutCandidate& other) const {
    const Prediction& p = base_.chosen.prediction;
    // Per token, so that layouts with other batches compare.
    const double ratio = p.tokens_per_second / other.prediction.tokens_per_second;
    scale(lever, Band<double>::exactly(ratio));
    lever.memory_gib = in_gibibytes(other.prediction.memory.peak) - in_gibibytes(p.memory.peak);
    over_ = other.prediction.memory.verdict == Verdict::kOutOfMemory;
  }
  const Assessment& base_;
  Efficiency efficiency_;
  mutable bool over_ = false;
};

Lever precision(const Assessment& a, const Puller& pull) {
  Lever lever = pull.begin("fp8", "8-bit matrix products", "the planner's fitted 8-bit efficiency");
  if (a.request.run.precision == Precision::kFp8 || a.request.run.precision == Precision::kFp4)
    return pull.refuse(std::move(lever), "in use");
  if (!(a.request.hardware.accelerator.fp8.value() > 0))
    return pull.refuse(std::move(lever), a.request.hardware.accelerator.name + " has no 8-bit arithmetic");
  return pull.searched(std::move(lever), [](PlanRequest& r) { r.run.precision = Precision::kFp8; });
}

Lever recompute(const Assessment& a, const Puller& pull, Recompute mode) {
  Lever lever = pull.begin(fmt::format("recompute {}", to_string(mode)),
                           "activations kept or computed again in backward", "step and memory model");
  if (a.chosen.run.recompute == mode) return pull.refuse(std::move(lever), "in use");
  return pull.changed(std::move(lever), [&](RunSpec& run) { run.recompute = mode; });
}

Lever zero(const Assessment& a, const Puller& pull, int64_t stage) {
  Lever lever =
      pull.begin(fmt::format("ZeRO {}", stage),
                 stage == 3 ? "parameters sharded over data-parallel workers" : "optimizer state sharded",
                 "step and memory model");
  if (a.chosen.run.layout.zero_stage == stage) return pull.refuse(std::move(lever), "in use");
  if (a.chosen.run.layout.data * a.chosen.run.layout.context == 1)
    return pull.refuse(std::move(lever), "one data-parallel worker: nothing to share");
  return pull.changed(std::move(lever), [&](RunSpec& run) { run.layout.zero_stage = stage; });
}

Lever power_cap(const Assessment& a, const Puller& pull) {
  const double max = a.request.hardware.accelerator.power.value();
  Lever lever = pull.begin("power cap 70 %", fmt::format("accelerators held at {:.0f} W", 0.7 * max),
                           "power.cap_static_share, power.compute_fraction");
  if (a.request.power_cap_w > 0) return pull.refuse(std::move(lever), "a cap is set");
  PowerInput in;
  in.accelerator_max = Watts(max);
  in.accelerators = a.request.hardware.accelerators;
  in.accelerators_per_node = a.request.hardware.accelerators_per_node;
  in.utilisation = a.utilisation;
  in.workstation = a.request.workstation;
  const double before = power_draw(in, a.request.figures).it.mid.value();
  in.cap = Watts(0.7 * max);
  const double after = power_draw(in, a.request.figures).it.mid.value();
  const Band<double> slow = slowdown_from_cap(in, a.request.figures);
  const auto time = [&](double s) { return 1 + a.utilisation * (s - 1); };
  lever.time = lever.money = {time(slow.low), time(slow.mid), time(slow.high)};
  lever.energy = lever.time * (after / before);
  return lever;
}

Lever compression(const Assessment& a, const Puller& pull) {
  Lever lever =
      pull.begin("gradient compression", "gradients exchanged in 8 bits", "lever.compression_volume");
  if (!(pull.step()[StepTerm::kDataComm].value() > 0))
    return pull.refuse(std::move(lever), "no exposed gradient exchange");
  const double share = pull.step()[StepTerm::kDataComm] / pull.step().total;
  const Band<double> volume = a.request.figures.at("lever.compression_volume");
  const auto time = [&](double v) { return 1 - share * (1 - v); };
  Puller::scale(lever, {time(volume.low), time(volume.mid), time(volume.high)});
  return lever;
}

// Two sites of half the machines each over a wide-area link, against the same two halves exchanging every
// step.
Lever diloco(const Assessment& a, const Puller& pull) {
  Lever lever = pull.begin("DiLoCo over 2 sites",
                           "half the machines each, parameters exchanged rarely over a slow link",
                           "lever.diloco_inner_steps, lever.diloco_tokens, lever.wan_gbps_per_site");
  const FigureBook& f = a.request.figures;
  if (a.request.hardware.accelerators < 2) return pull.refuse(std::move(lever), "one accelerator");
  const auto &inner = f.at("lever.diloco_inner_steps"), &tokens = f.at("lever.diloco_tokens"),
             &link = f.at("lever.wan_gbps_per_site");
  const double bytes = a.parameters * 2;  // 16-bit parameter differences, each way
  const double step = a.step.mid.value();
  const auto time = [&](double steps_between, double penalty, double gbps) {
    return penalty * (1 + bytes / (gbps * 1e9) / (steps_between * step));
  };
  Puller::scale(lever, {time(inner.low, tokens.low, link.high), time(inner.mid, tokens.mid, link.mid),
                        time(inner.high, tokens.high, link.low)});
  lever.what += fmt::format("; exchanging every step would take {:.0f} times as long",
                            1 + bytes / (link.mid * 1e9) / step);
  return lever;
}

}  // namespace

std::vector<Lever> levers(const Assessment& a) {
  std::vector<Lever> out;
  if (!a.fits) return out;
  const Puller pull(a);
  const FigureBook& f = a.request.figures;
  out.push_back(precision(a, pull));
  Lever flash = pull.begin("fused attention", "scores never reach memory", "step and memory model");
  out.push_back(a.chosen.run.flash_attention
                    ? pull.refuse(std::move(flash), "in use")
                    : pull.changed(std::move(flash), [](RunSpec& run) { run.flash_attention = true; }));
  out.push_back(pull.tuned(pull.begin("fused element-wise kernels",
                                      "norms, activations and loss in one pass each", "lever.fused_passes"),
                           f.at("lever.fused_passes"), [](Efficiency& e, double v) {
                             auto& passes = e.value[static_cast<size_t>(Term::kPasses)];
                             passes = std::min(passes, v);
                           }));
  for (const Recompute mode : {Recompute::kNone, Recompute::kSelective, Recompute::kFull})
    out.push_back(recompute(a, pull, mode));
  for (const int64_t stage : {1, 3}) out.push_back(zero(a, pull, stage));
  out.push_back(
      pull.tuned(pull.begin("overlap", "communication hidden behind computation as well as the best do",
                            "lever.overlap_exposed"),
                 f.at("lever.overlap_exposed"), [](Efficiency& e, double v) {
                   for (const Term t : {Term::kTensorExposed, Term::kContextExposed, Term::kExpertExposed,
                                        Term::kDataExposed, Term::kPipelineExposed}) {
                     auto& exposed = e.value[static_cast<size_t>(t)];
                     exposed = std::min(exposed, v);
                   }
                 }));
  out.push_back(compression(a, pull));
  out.push_back(diloco(a, pull));
  Lever lora = pull.begin("LoRA instead of full training",
                          "base weights frozen, adapters trained: for adapting, not for "
                          "pre-training",
                          "step and memory model");
  if (a.request.run.training != TrainingKind::kFineTune)
    out.push_back(
        pull.refuse(std::move(lora), fmt::format("the run is {}", to_string(a.request.run.training))));
  else
    out.push_back(
        pull.searched(std::move(lora), [](PlanRequest& r) { r.run.training = TrainingKind::kLora; }));
  Lever optimizer =
      pull.begin("better optimizer (Muon)", "the same loss from fewer tokens", "lever.optimizer_tokens");
  if (a.request.run.optimizer.kind != OptimizerKind::kAdamW) {
    out.push_back(pull.refuse(std::move(optimizer), "in use"));
  } else {
    Puller::scale(optimizer, f.at("lever.optimizer_tokens"));
    out.push_back(std::move(optimizer));
  }
  out.push_back(power_cap(a, pull));
  return out;
}

}  // namespace stoker::plan
