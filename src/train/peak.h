// train/peak.h
// This machine's matrix-product ceiling: what MFU is measured against, in the same run.
// measure_peak   runs products through the linear op (oneDNN) over several shapes for about `seconds` and returns the best rate of
//                any shape in FLOP/s. The shapes span those of training: square ones and those of a 124M model.
// peak_bytes     what the largest of those products keeps in memory while it is measured.
#pragma once
#include "ops/context.h"
#include "spec/run_spec.h"

namespace stoker::train {

double measure_peak(ops::Context& context, Precision precision, double seconds);
size_t peak_bytes(Precision precision);

}  // namespace stoker::train
