#include "ops/element.h"
#include "ops/ref/ref.h"

namespace stoker::ops::ref {

void embedding_forward(Context&, const EmbeddingForward& a) {
  const int64_t d = a.y.columns();
  for (int64_t r = 0; r < a.tokens.count(); ++r)
    for (int64_t i = 0; i < d; ++i) {
      float y = get(a.table, a.tokens.as<int32_t>()[r] * d + i);
      if (a.position_table) y += get(a.position_table, a.positions.as<int32_t>()[r] * d + i);
      put(a.y, r * d + i, y);
    }
}

void embedding_backward(Context&, const EmbeddingBackward& a) {
  const int64_t d = a.dy.columns();
  for (int64_t r = 0; r < a.tokens.count(); ++r)
    for (int64_t i = 0; i < d; ++i) {
      a.dtable.as<float>()[a.tokens.as<int32_t>()[r] * d + i] += get(a.dy, r * d + i);
      if (a.dposition_table)
        a.dposition_table.as<float>()[a.positions.as<int32_t>()[r] * d + i] += get(a.dy, r * d + i);
    }
}

}  // namespace stoker::ops::ref
