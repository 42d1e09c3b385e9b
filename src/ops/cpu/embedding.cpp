#include "ops/embedding.h"

#include <cstring>

#include "ops/cpu/rowwise.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace {

void gather(Context&, const EmbeddingForward& a) {
  const int64_t d = a.y.columns();
  const size_t row = static_cast<size_t>(d) * dtype_size(a.y.dtype);
  const char* table = static_cast<const char*>(a.table.data);
  parallel_ranges(a.tokens.count(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r)
      std::memcpy(static_cast<char*>(a.y.data) + static_cast<size_t>(r) * row,
                  table + static_cast<size_t>(a.tokens.as<int32_t>()[r]) * row, row);
  });
}

std::string refuses_gather(const EmbeddingForward& a) {
  if (a.position_table) return "has learned positions";
  return a.table.dtype == a.y.dtype ? std::string() : "table and output differ in type";
}

// gradient[indices[r],:] += dy[r,:]. A thread owns a range of the table's rows and reads every index: no two threads write one
// row, and its sum keeps the order of r.
template <cpu::Table table>
void scatter(const TensorView& gradient, const TensorView& indices, const TensorView& dy) {
  const int32_t* index = indices.as<int32_t>();
  const int64_t d = dy.columns();
  parallel_ranges(gradient.rows(), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = 0; r < indices.count(); ++r)
      if (index[r] >= begin && index[r] < end) table().add_row(gradient.as<float>() + index[r] * d, dy, r);
  });
}

template <cpu::Table table>
void backward(Context&, const EmbeddingBackward& a) {
  scatter<table>(a.dtable, a.tokens, a.dy);
  if (a.dposition_table) scatter<table>(a.dposition_table, a.positions, a.dy);
}

constexpr Candidate<EmbeddingForward> kForward[] = {{"gather", refuses_gather, gather},
                                                    {"ref", nullptr, ref::embedding_forward}};
constexpr auto kBackward = cpu::candidates<EmbeddingBackward>(
    backward<cpu::vector_avx512>, backward<cpu::vector_avx2>, ref::embedding_backward);

}  // namespace

void embedding_forward(Context& context, const EmbeddingForward& a) {
  cpu::check_indices("token", a.tokens, 0, a.table.rows());
  if (a.position_table) cpu::check_indices("position", a.positions, 0, a.position_table.rows());
  context.run<EmbeddingForward>("embedding_forward", kForward, a);
}

void embedding_backward(Context& context, const EmbeddingBackward& a) {
  STOKER_CHECK(a.dtable.columns() == a.dy.columns() && a.dtable.dtype == Dtype::kF32);
  context.run<EmbeddingBackward>("embedding_backward", kBackward, a);
}

}  // namespace stoker::ops
