// The row-wise kernels for avx2: the bodies are shared, the lanes are not.
#include "ops/cpu/lanes_avx2.h"
#include "ops/cpu/vector_table.h"
// after the lanes
#include "ops/cpu/lanes_math.h"
// after the math
#include "ops/cpu/norm_body.h"
// after the pieces
#include "ops/cpu/pointwise_body.h"
#include "ops/cpu/update_body.h"
// last
#include "ops/cpu/table_body.h"

namespace stoker::ops::cpu {
const VectorTable& vector_avx2() { return kTable; }
}  // namespace stoker::ops::cpu
