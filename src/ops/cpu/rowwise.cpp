#include "ops/cpu/rowwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/cpu_features.h"
#include "base/threads.h"
#include "ops/cuda/candidates.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace cpu {

const VectorTable* best_table() {
  if (cpu_has(Isa::kAvx512)) return &vector_avx512();
  if (cpu_has(Isa::kAvx2)) return &vector_avx2();
  return nullptr;
}

namespace {

constexpr int64_t kRowBlock = 64;
constexpr int64_t kElementBlock = 65536;

int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

// y[i] += sum over blocks, in order, of partial[block][i]
void fold(const VectorTable& table, const float* partial, int64_t block_count, int64_t stride, int64_t offset,
          const TensorView& y) {
  parallel_ranges(y.count(), [&](int64_t begin, int64_t end, int) {
    for (int64_t b = 0; b < block_count; ++b)
      table.add(y.as<float>() + begin, partial + b * stride + offset + begin, end - begin);
  });
}

// Calls body(begin, end, partial) per block of rows; partial has `width` floats of its own in scratch.
// Returns scratch.
template <typename Body>
float* row_blocks(Context& context, int64_t rows, int64_t width, Body body) {
  const int64_t n = blocks(rows, kRowBlock);
  float* partial = static_cast<float*>(context.scratch(static_cast<size_t>(n * width) * sizeof(float)));
  parallel_for(
      n, [&](int64_t b) { body(b * kRowBlock, std::min(rows, (b + 1) * kRowBlock), partial + b * width); });
  return partial;
}

template <const VectorTable& (*table)()>
struct Rowwise {
  static void norm_forward(Context&, const NormForward& a) {
    parallel_ranges(a.x.rows(),
                    [&](int64_t begin, int64_t end, int) { table().norm_forward(a, begin, end); });
  }
  static void norm_backward(Context& context, const NormBackward& a) {
    const int64_t d = a.x.columns(), width = a.dbias ? 2 * d : d;
    const float* partial = row_blocks(context, a.x.rows(), width, [&](int64_t begin, int64_t end, float* p) {
      table().norm_backward(a, begin, end, p, a.dbias ? p + d : nullptr);
    });
    fold(table(), partial, blocks(a.x.rows(), kRowBlock), width, 0, a.dgain);
    if (a.dbias) fold(table(), partial, blocks(a.x.rows(), kRowBlock), width, d, a.dbias);
  }
  static void rope_forward(Context&, const RopeForward& a) {
    parallel_ranges(a.positions.count(),
                    [&](int64_t begin, int64_t end, int) { table().rope_forward(a, begin, end); });
  }
  static void rope_backward(Context& context, const RopeBackward& a) {
    const int64_t rows = a.positions.count(), dh = a.dqkv.columns();
    const float* partial = row_blocks(context, rows, 2 * dh, [&](int64_t begin, int64_t end, float* p) {
      table().rope_backward(a, begin, end, p, p + dh);
    });
    if (!a.raw) return;
    fold(table(), partial, blocks(rows, kRowBlock), 2 * dh, 0, a.dq_gain);
    fold(table(), partial, blocks(rows, kRowBlock), 2 * dh, dh, a.dk_gain);
  }
  static void activation_forward(Context&, const ActivationForward& a) {
    parallel_ranges(a.y.rows(),
                    [&](int64_t begin, int64_t end, int) { table().activation_forward(a, begin, end); });
  }
  static void activation_backward(Context&, const ActivationBackward& a) {
    parallel_ranges(a.dy.rows(),
                    [&](int64_t begin, int64_t end, int) { table().activation_backward(a, begin, end); });
  }
  static void cross_entropy(Context&, const CrossEntropy& a) {
    parallel_ranges(a.logits.rows(),
                    [&](int64_t begin, int64_t end, int) { table().cross_entropy(a, begin, end); });
  }
  static void adamw(Context&, const AdamW& a) {
    parallel_ranges(a.param.count(), [&](int64_t begin, int64_t end, int) { table().adamw(a, begin, end); });
  }
  static void sgd(Context&, const Sgd& a) {
    parallel_ranges(a.param.count(), [&](int64_t begin, int64_t end, int) { table().sgd(a, begin, end); });
  }
  static void round_copy(Context&, const RoundCopy& a) {
    parallel_ranges(a.source.count(),
                    [&](int64_t begin, int64_t end, int) { table().round_copy(a, begin, end); });
  }
  static void add_into(Context&, const AddInto& a) {
    parallel_ranges(a.y.count(), [&](int64_t begin, int64_t end, int) {
      table().add(a.y.as<float>() + begin, a.x.as<float>() + begin, end - begin);
    });
  }
  static void sum_squares(Context& context, const SumSquares& a) {
    const int64_t count = a.x.count(), n = blocks(count, kElementBlock);
    double* sums =
        a.blocks ? a.blocks : static_cast<double*>(context.scratch(static_cast<size_t>(n) * sizeof(double)));
    parallel_for(n, [&](int64_t b) {
      sums[b] = table().sum_squares(a.x.as<float>() + b * kElementBlock,
                                    std::min(kElementBlock, count - b * kElementBlock));
    });
    *a.out = 0;
    for (int64_t b = 0; b < n; ++b) *a.out += sums[b];
  }
  static void embedding_backward(Context&, const EmbeddingBackward& a) {
    // A thread owns a range of table rows and reads every token: no two threads write one row, and its sum
    // keeps row order.
    const int32_t* tokens = a.tokens.as<int32_t>();
    const int64_t d = a.dy.columns();
    parallel_ranges(a.dtable.rows(), [&](int64_t begin, int64_t end, int) {
      for (int64_t r = 0; r < a.tokens.count(); ++r)
        if (tokens[r] >= begin && tokens[r] < end)
          table().add_row(a.dtable.as<float>() + tokens[r] * d, a.dy, r);
    });
    if (!a.dposition_table) return;
    const int32_t* positions = a.positions.as<int32_t>();
    parallel_ranges(a.dposition_table.rows(), [&](int64_t begin, int64_t end, int) {
      for (int64_t r = 0; r < a.tokens.count(); ++r)
        if (positions[r] >= begin && positions[r] < end)
          table().add_row(a.dposition_table.as<float>() + positions[r] * d, a.dy, r);
    });
  }
};
using Avx512 = Rowwise<vector_avx512>;
using Avx2 = Rowwise<vector_avx2>;

template <typename Args, Isa isa>
std::string needs(const Args&) {
  if (cpu_has(isa)) return {};
  return isa == Isa::kAvx512 ? "this processor has no AVX-512" : "this processor has no AVX2";
}

void embedding_gather(Context&, const EmbeddingForward& a) {
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

}  // namespace

void bias_gradient(Context& context, const LinearBackwardWeight& a) {
  if (a.accumulate == Accumulate::kOverwrite) std::memset(a.dbias.data, 0, a.dbias.bytes());
  const VectorTable* table = best_table();
  if (!table) {
    for (int64_t r = 0; r < a.dy.rows(); ++r)
      for (int64_t i = 0; i < a.dy.columns(); ++i)
        a.dbias.as<float>()[i] += a.dy.dtype == Dtype::kF32
                                      ? a.dy.as<float>()[r * a.dy.columns() + i]
                                      : to_float(a.dy.as<Bf16>()[r * a.dy.columns() + i]);
    return;
  }
  const int64_t n = a.dy.columns();
  const float* partial = row_blocks(context, a.dy.rows(), n, [&](int64_t begin, int64_t end, float* p) {
    table->column_sums(a.dy, begin, end, p);
  });
  fold(*table, partial, blocks(a.dy.rows(), kRowBlock), n, 0, a.dbias);
}

}  // namespace cpu

namespace {

void check_indices(const char* what, const TensorView& indices, int64_t low, int64_t size) {
  if (indices.device.kind != DeviceKind::kCpu) return;  // a kernel has to look for itself
  const int32_t* p = indices.as<int32_t>();
  for (int64_t i = 0; i < indices.count(); ++i)
    if (p[i] < low || p[i] >= size)
      fail(ErrorKind::kData, "{} {} in row {} is outside {}..{}: the data does not belong to this model",
           what, p[i], i, low, size - 1);
}

#define STOKER_CANDIDATES(Args, op)                                \
  constexpr Candidate<Args> k_##op[] = {                           \
      {"avx512", cpu::needs<Args, Isa::kAvx512>, cpu::Avx512::op}, \
      {"avx2", cpu::needs<Args, Isa::kAvx2>, cpu::Avx2::op},       \
      {"ref", nullptr, ref::op},                                   \
  }

STOKER_CANDIDATES(NormForward, norm_forward);
STOKER_CANDIDATES(NormBackward, norm_backward);
STOKER_CANDIDATES(RopeForward, rope_forward);
STOKER_CANDIDATES(RopeBackward, rope_backward);
STOKER_CANDIDATES(ActivationForward, activation_forward);
STOKER_CANDIDATES(ActivationBackward, activation_backward);
STOKER_CANDIDATES(CrossEntropy, cross_entropy);
STOKER_CANDIDATES(AdamW, adamw);
STOKER_CANDIDATES(Sgd, sgd);
STOKER_CANDIDATES(AddInto, add_into);
STOKER_CANDIDATES(SumSquares, sum_squares);
STOKER_CANDIDATES(RoundCopy, round_copy);
STOKER_CANDIDATES(EmbeddingBackward, embedding_backward);
#undef STOKER_CANDIDATES
constexpr Candidate<EmbeddingForward> k_embedding_forward[] = {
    {"gather", cpu::refuses_gather, cpu::embedding_gather}, {"ref", nullptr, ref::embedding_forward}};

template <typename Args, size_t n>
void run(Context& context, std::string_view op, const Candidate<Args> (&candidates)[n], const Args& args,
         std::span<const Candidate<Args>> cuda_candidates = {}) {
  context.run(op, std::span<const Candidate<Args>>(candidates), args, cuda_candidates);
}

}  // namespace

void norm_forward(Context& context, const NormForward& a) {
  STOKER_CHECK(a.x.shape == a.y.shape && a.x.dtype == a.y.dtype && a.gain.count() == a.x.columns() &&
               a.rstd.count() == a.x.rows());
  STOKER_CHECK(static_cast<bool>(a.delta) == static_cast<bool>(a.x_out) &&
               (a.form == NormForm::kLayer) == static_cast<bool>(a.mean));
  run(context, "norm_forward", k_norm_forward, a, cuda::norm_forward_candidates());
}
void norm_backward(Context& context, const NormBackward& a) {
  STOKER_CHECK(a.x.shape == a.dx.shape && a.x.dtype == a.dx.dtype && a.x.dtype == a.dy.dtype &&
               a.gain.count() == a.x.columns());
  run(context, "norm_backward", k_norm_backward, a, cuda::norm_backward_candidates());
}
void fill_rope_table(std::span<const double> frequency, TensorView table) {
  const int64_t half = static_cast<int64_t>(frequency.size());
  STOKER_CHECK(table.columns() == 2 * half);
  float* out = table.as<float>();
  parallel_for(table.rows(), [&](int64_t p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * frequency[static_cast<size_t>(i)];
      out[p * 2 * half + i] = static_cast<float>(std::cos(angle));
      out[p * 2 * half + half + i] = static_cast<float>(std::sin(angle));
    }
  });
}
void rope_forward(Context& context, const RopeForward& a) {
  STOKER_CHECK(a.qkv.count() == a.positions.count() * (a.heads + 2 * a.kv_heads) * a.qkv.columns());
  check_indices("position", a.positions, 0, a.table.rows());
  run(context, "rope_forward", k_rope_forward, a);
}
void rope_backward(Context& context, const RopeBackward& a) {
  STOKER_CHECK(a.dqkv.count() == a.positions.count() * (a.heads + 2 * a.kv_heads) * a.dqkv.columns());
  run(context, "rope_backward", k_rope_backward, a);
}
void activation_forward(Context& context, const ActivationForward& a) {
  STOKER_CHECK(a.x.count() == a.y.count() * (a.form == ActivationForm::kSwiGlu ? 2 : 1) &&
               a.x.dtype == a.y.dtype);
  run(context, "activation_forward", k_activation_forward, a);
}
void activation_backward(Context& context, const ActivationBackward& a) {
  STOKER_CHECK(a.x.count() == a.dy.count() * (a.form == ActivationForm::kSwiGlu ? 2 : 1) &&
               a.x.dtype == a.dy.dtype);
  run(context, "activation_backward", k_activation_backward, a);
}
void cross_entropy(Context& context, const CrossEntropy& a) {
  STOKER_CHECK(a.logits.dtype == Dtype::kF32 && a.targets.count() == a.logits.rows() &&
               a.loss.count() == a.logits.rows());
  check_indices("target", a.targets, -1, a.logits.columns());
  run(context, "cross_entropy", k_cross_entropy, a);
}
void adamw(Context& context, const AdamW& a) {
  STOKER_CHECK(a.param.count() == a.grad.count() && a.m.count() == a.param.count() &&
               a.v.count() == a.param.count());
  run(context, "adamw", k_adamw, a, cuda::adamw_candidates());
}
void sgd(Context& context, const Sgd& a) { run(context, "sgd", k_sgd, a); }
void add_into(Context& context, const AddInto& a) {
  STOKER_CHECK(a.y.count() == a.x.count());
  run(context, "add_into", k_add_into, a);
}
double sum_squares(Context& context, TensorView x) {
  double out = 0;
  run(context, "sum_squares", k_sum_squares, SumSquares{x, &out});
  return out;
}
void sum_squares_blocks(Context& context, TensorView x, double* blocks) {
  double out = 0;
  run(context, "sum_squares", k_sum_squares, SumSquares{x, &out, blocks});
}
void round_copy(Context& context, const RoundCopy& a) {
  STOKER_CHECK(a.source.count() == a.copy.count() && a.source.dtype == Dtype::kF32 &&
               a.copy.dtype == Dtype::kBf16);
  run(context, "round_copy", k_round_copy, a);
}
void embedding_forward(Context& context, const EmbeddingForward& a) {
  check_indices("token", a.tokens, 0, a.table.rows());
  if (a.position_table) check_indices("position", a.positions, 0, a.position_table.rows());
  run(context, "embedding_forward", k_embedding_forward, a);
}
void embedding_backward(Context& context, const EmbeddingBackward& a) {
  STOKER_CHECK(a.dtable.columns() == a.dy.columns() && a.dtable.dtype == Dtype::kF32);
  run(context, "embedding_backward", k_embedding_backward, a);
}

}  // namespace stoker::ops
