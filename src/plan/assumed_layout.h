// plan/assumed_layout.h
// What a published run does not state of its layout and batch, chosen as a careful user of its engine would
// have: the fastest that fits, by the priors (never by the fitted numbers, so that a fit does not choose what
// it is fitted on).
// Cost        milliseconds: a search over the layouts of the accelerators.
#pragma once
#include "plan/predict.h"

namespace stoker::plan {

struct StatedParts {
  bool layout = false, micro_batch = false, global_batch = false, recompute = false;
  bool zero = true;  // the stage, stated or the engine's habit
};

// Fills what is not stated of `input.run`. The world size must be set, and so must model, precision and sequence
// length. Leaves `input` as it is where nothing fits.
void assume_layout(PlanInput& input, const StatedParts& stated);

// Tokens of a step where nobody says: millions on large clusters, less on small ones.
int64_t usual_global_batch(const PlanInput& input);

}  // namespace stoker::plan
