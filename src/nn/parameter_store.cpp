#include "nn/parameter_store.h"

#include <cmath>
#include <cstring>

#include "base/hash.h"
#include "base/random.h"
#include "base/threads.h"
#include "ops/update.h"

namespace stoker::nn {

size_t ParameterStore::bytes(const ModelSpec& spec, Precision precision, bool gradients) {
  const size_t n = static_cast<size_t>(parameter_count(spec));
  return n * 4 + (gradients ? n * 4 : 0) + (precision == Precision::kBf16 ? n * 2 : 0);
}

ParameterStore::ParameterStore(const ModelSpec& spec, Precision precision, bool gradients)
    : spec_(spec), precision_(precision) {
  if (precision != Precision::kFp32 && precision != Precision::kBf16)
    fail(ErrorKind::kUsage, "train.precision is {}: this engine trains in fp32 or bf16",
         to_string(precision));
  const int64_t n = parameter_count(spec);
  value_memory_ = Buffer(static_cast<size_t>(n) * 4);
  values_ = view_of(static_cast<float*>(value_memory_.data()), {n});
  if (gradients) {
    grad_memory_ = Buffer(static_cast<size_t>(n) * 4);
    grads_ = view_of(static_cast<float*>(grad_memory_.data()), {n});
  }
  if (precision == Precision::kBf16) {
    compute_memory_ = Buffer(static_cast<size_t>(n) * 2);
    computes_ = view_of(static_cast<Bf16*>(compute_memory_.data()), {n});
  }
  int64_t at = 0;
  for (ParameterRow& row : parameter_table(spec)) {
    const int64_t count = row.count();
    const Shape shape{std::span<const int64_t>(row.shape)};
    Weight w;
    w.value = values_.slice_rows(at, at + count).reshaped(shape);
    if (gradients) w.grad = grads_.slice_rows(at, at + count).reshaped(shape);
    w.compute = computes_ ? computes_.slice_rows(at, at + count).reshaped(shape) : w.value;
    parameters_.push_back({std::move(row), w});
    at += count;
  }
}

int64_t ParameterStore::index(std::string_view name) const {
  for (size_t i = 0; i < parameters_.size(); ++i)
    if (parameters_[i].row.name == name) return static_cast<int64_t>(i);
  return -1;
}

Weight ParameterStore::find(std::string_view name) const {
  const int64_t i = index(name);
  return i < 0 ? Weight{} : parameters_[static_cast<size_t>(i)].weight;
}

Weight ParameterStore::fused(std::string_view first, std::string_view last) const {
  const int64_t begin = index(first), end = index(last);
  if (begin < 0 || end < 0) return {};
  std::vector<int64_t> dims = parameters_[static_cast<size_t>(begin)].row.shape;
  for (int64_t i = begin + 1; i <= end; ++i) {
    const std::vector<int64_t>& next = parameters_[static_cast<size_t>(i)].row.shape;
    STOKER_CHECK(next.size() == dims.size() && std::equal(next.begin() + 1, next.end(), dims.begin() + 1),
                 "{} .. {}", first, last);
    dims[0] += next[0];
  }
  const Shape shape{std::span<const int64_t>(dims)};
  Weight w = parameters_[static_cast<size_t>(begin)].weight;
  w.value.shape = w.compute.shape = shape;
  if (w.grad) w.grad.shape = shape;
  return w;
}

void ParameterStore::init(uint64_t seed, float std) {
  for (const Parameter& p : parameters_) {
    float* out = p.weight.value.as<float>();
    const int64_t n = p.weight.value.count();
    if (p.row.role == ParameterRole::kBias) std::memset(out, 0, p.weight.value.bytes());
    else if (p.row.role == ParameterRole::kNormGain) std::fill_n(out, n, 1.0f);
    else {
      const float scale =
          p.row.residual_output ? std / std::sqrt(2.0f * static_cast<float>(spec_.layers)) : std;
      const PhiloxKey key{seed, hash64(p.row.name)};
      parallel_ranges(n, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) out[i] = scale * random_normal(key, static_cast<uint64_t>(i));
      });
    }
  }
}

void ParameterStore::refresh(ops::Context& context) {
  if (computes_) ops::round_copy(context, {values_, computes_});
}

void ParameterStore::zero_grads() {
  parallel_ranges(grads_.count(), [&](int64_t begin, int64_t end, int) {
    std::memset(grads_.as<float>() + begin, 0, static_cast<size_t>(end - begin) * sizeof(float));
  });
}

}  // namespace stoker::nn
