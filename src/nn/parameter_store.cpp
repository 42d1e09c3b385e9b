#include "nn/parameter_store.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/hash.h"
#include "base/random.h"
#include "base/threads.h"
#include "ops/update.h"

namespace stoker::nn {

namespace {

struct Selection {
  std::vector<std::pair<size_t, size_t>> trained;  // row of the table, chunk
  std::vector<size_t> read_only;
  std::vector<size_t> offsets;  // of every row in the whole model's array
  size_t trained_count = 0, read_only_count = 0;
};

Selection select(const ModelSpec& spec, const std::vector<ParameterRow>& table,
                 const std::vector<ChunkSpec>& chunks) {
  Selection s;
  size_t at = 0;
  for (const ParameterRow& row : table) {
    s.offsets.push_back(at);
    at += static_cast<size_t>(row.count());
  }
  for (size_t c = 0; c < chunks.size(); ++c)
    for (size_t i = 0; i < table.size(); ++i) {
      if (trains(spec, chunks[c], table[i])) {
        s.trained.emplace_back(i, c);
        s.trained_count += static_cast<size_t>(table[i].count());
      } else if (reads_only(spec, chunks[c], table[i])) {
        s.read_only.push_back(i);
        s.read_only_count += static_cast<size_t>(table[i].count());
      }
    }
  // Both ends of the model here: what one chunk reads another trains.
  std::erase_if(s.read_only, [&](size_t i) {
    const bool held =
        std::any_of(s.trained.begin(), s.trained.end(), [&](const auto& t) { return t.first == i; });
    if (held) s.read_only_count -= static_cast<size_t>(table[i].count());
    return held;
  });
  return s;
}

}  // namespace

size_t ParameterStore::bytes(const ModelSpec& spec, Precision precision, bool gradients,
                             const std::vector<ChunkSpec>& chunks) {
  const Selection s = select(spec, parameter_table(spec), chunks);
  const size_t n = s.trained_count, r = s.read_only_count;
  return (n + r) * 4 + (gradients ? n * 4 : 0) + (precision == Precision::kBf16 ? (n + r) * 2 : 0);
}

ParameterStore::ParameterStore(const ModelSpec& spec, Precision precision, bool gradients)
    : ParameterStore(spec, precision, gradients, {whole_model(spec)}) {}

ParameterStore::ParameterStore(const ModelSpec& spec, Precision precision, bool gradients,
                               const std::vector<ChunkSpec>& chunks, size_t first_flat)
    : spec_(spec), precision_(precision) {
  if (precision != Precision::kFp32 && precision != Precision::kBf16)
    fail(ErrorKind::kUsage, "train.precision is {}: this engine trains in fp32 or bf16",
         to_string(precision));
  const std::vector<ParameterRow> table = parameter_table(spec);
  const Selection selected = select(spec, table, chunks);
  const auto n = static_cast<int64_t>(selected.trained_count),
             all = n + static_cast<int64_t>(selected.read_only_count);
  value_memory_ = Buffer(static_cast<size_t>(all) * 4);
  const TensorView values = view_of(static_cast<float*>(value_memory_.data()), {all});
  values_ = values.slice_rows(0, n);
  if (gradients) {
    grad_memory_ = Buffer(static_cast<size_t>(n) * 4);
    grads_ = view_of(static_cast<float*>(grad_memory_.data()), {n});
  }
  TensorView computes;
  if (precision == Precision::kBf16) {
    compute_memory_ = Buffer(static_cast<size_t>(all) * 2);
    computes = view_of(static_cast<Bf16*>(compute_memory_.data()), {all});
    computes_ = computes.slice_rows(0, n);
  }
  int64_t at = 0;
  const auto add = [&](size_t row, bool trained) {
    const int64_t count = table[row].count();
    const Shape shape{std::span<const int64_t>(table[row].shape)};
    Weight w;
    w.value = values.slice_rows(at, at + count).reshaped(shape);
    if (gradients && trained) w.grad = grads_.slice_rows(at, at + count).reshaped(shape);
    w.compute = computes ? computes.slice_rows(at, at + count).reshaped(shape) : w.value;
    parameters_.push_back({table[row], w, first_flat + selected.offsets[row], trained});
    at += count;
  };
  chunk_ranges_.assign(chunks.size(), {0, 0});
  for (const auto& [row, chunk] : selected.trained) {
    auto& range = chunk_ranges_[chunk];
    if (range.second == 0) range.first = static_cast<size_t>(at);
    add(row, true);
    range.second = static_cast<size_t>(at);
  }
  for (const size_t row : selected.read_only) add(row, false);
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
  for (const Parameter& p : parameters_) initial_values(spec_, p.row, seed, std, p.weight.value.as<float>());
}

void ParameterStore::initial_values(const ModelSpec& spec, const ParameterRow& row, uint64_t seed, float std,
                                    float* out) {
  const int64_t n = row.count();
  if (row.role == ParameterRole::kBias || row.role == ParameterRole::kNormGain) {
    std::fill_n(out, n, row.role == ParameterRole::kBias ? 0.0f : 1.0f);
    return;
  }
  const float scale = row.residual_output ? std / std::sqrt(2.0f * static_cast<float>(spec.layers)) : std;
  const PhiloxKey key{seed, hash64(row.name)};
  parallel_ranges(n, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) out[i] = scale * random_normal(key, static_cast<uint64_t>(i));
  });
}

void ParameterStore::refresh(ops::Context& context) {
  if (computes_) ops::round_copy(context, {values_, computes_});
  refresh_read_only(context);
}

void ParameterStore::refresh_read_only(ops::Context& context) {
  if (precision_ != Precision::kBf16) return;
  for (const Parameter& p : parameters_)
    if (!p.trained)
      ops::round_copy(context,
                      {p.weight.value.reshaped({p.row.count()}), p.weight.compute.reshaped({p.row.count()})});
}

void ParameterStore::zero_grads() { zero_grads(0, static_cast<size_t>(grads_.count())); }

void ParameterStore::zero_grads(size_t first, size_t last) {
  float* base = grads_.as<float>() + first;
  parallel_ranges(static_cast<int64_t>(last - first), [&](int64_t begin, int64_t end, int) {
    std::memset(base + begin, 0, static_cast<size_t>(end - begin) * sizeof(float));
  });
}

}  // namespace stoker::nn
