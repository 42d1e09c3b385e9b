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

struct Placed {
  size_t row = 0, chunk = 0;
  bool trained = true;
  size_t value_at = 0, grad_at = 0;  // in the arrays of values (and copies) and of gradients
};

// Where every row goes, without memory.
struct Walk {
  std::vector<ParameterRow> table;
  std::vector<size_t> offsets;  // of every row in the whole model's array
  std::vector<Placed> rows;
  size_t linear_values = 0,
         linear_grads = 0;  // the flat arrays; rings and rows that are only read lie behind
  size_t values = 0, grads = 0;
};

Walk walk(const ModelSpec& spec, const std::vector<ChunkSpec>& chunks, StoreRings rings) {
  Walk w;
  w.table = parameter_table(spec);
  size_t at = 0, layer_size = 0;
  for (const ParameterRow& row : w.table) {
    w.offsets.push_back(at);
    at += static_cast<size_t>(row.count());
    if (row.layer == 0) layer_size += static_cast<size_t>(row.count());
  }
  for (size_t c = 0; c < chunks.size(); ++c)
    for (size_t i = 0; i < w.table.size(); ++i)
      if (trains(spec, chunks[c], w.table[i])) w.rows.push_back({i, c, true, 0, 0});
  // What one chunk only reads another may train here, where both ends of the model are.
  const size_t trained = w.rows.size();
  for (const ChunkSpec& c : chunks)
    for (size_t i = 0; i < w.table.size(); ++i)
      if (reads_only(spec, c, w.table[i]) &&
          std::none_of(w.rows.begin(), w.rows.begin() + static_cast<int64_t>(trained),
                       [&](const Placed& p) { return p.row == i; }))
        w.rows.push_back({i, 0, false, 0, 0});
  const auto place = [&](bool ring, bool read_only, size_t Placed::*where, size_t& end) {
    for (Placed& p : w.rows) {
      const bool layer = w.table[p.row].layer >= 0;
      if ((ring && layer) || !p.trained) continue;
      p.*where = end;
      end += static_cast<size_t>(w.table[p.row].count());
    }
    const size_t linear = end;
    if (ring) {
      size_t first = 0, turn = 0;  // of the layer: its first row, and its half of the ring
      int64_t layer = -1;
      for (Placed& p : w.rows) {
        const int64_t l = w.table[p.row].layer;
        if (l < 0) continue;
        if (layer >= 0 && l != layer) turn = 1 - turn;
        if (l != layer) first = p.row;
        layer = l;
        p.*where = linear + turn * layer_size + (w.offsets[p.row] - w.offsets[first]);
      }
      end += 2 * layer_size;
    }
    if (read_only)
      for (Placed& p : w.rows)
        if (!p.trained) {
          p.*where = end;
          end += static_cast<size_t>(w.table[p.row].count());
        }
    return linear;
  };
  w.linear_values = place(rings.values, true, &Placed::value_at, w.values);
  w.linear_grads = place(rings.gradients, false, &Placed::grad_at, w.grads);
  return w;
}

}  // namespace

size_t ParameterStore::bytes(const ModelSpec& spec, Precision precision, bool gradients,
                             const std::vector<ChunkSpec>& chunks, StoreRings rings) {
  const Walk w = walk(spec, chunks, rings);
  return w.values * 4 + (gradients ? w.grads * 4 : 0) + (precision == Precision::kBf16 ? w.values * 2 : 0);
}

ParameterStore::ParameterStore(const ModelSpec& spec, Precision precision, bool gradients)
    : ParameterStore(spec, precision, gradients, {whole_model(spec)}) {}

ParameterStore::ParameterStore(const ModelSpec& spec, Precision precision, bool gradients,
                               const std::vector<ChunkSpec>& chunks, StoreRings rings, size_t first_flat)
    : spec_(spec), precision_(precision) {
  if (precision != Precision::kFp32 && precision != Precision::kBf16)
    fail(ErrorKind::kUsage, "train.precision is {}: this engine trains in fp32 or bf16",
         to_string(precision));
  const Walk w = walk(spec, chunks, rings);
  const auto all = static_cast<int64_t>(w.values), linear = static_cast<int64_t>(w.linear_values);
  value_memory_ = Buffer(w.values * 4);
  const TensorView values = view_of(static_cast<float*>(value_memory_.data()), {all});
  values_ = values.slice_rows(0, linear);
  TensorView grads, computes;
  if (gradients) {
    grad_memory_ = Buffer(w.grads * 4);
    grads = view_of(static_cast<float*>(grad_memory_.data()), {static_cast<int64_t>(w.grads)});
    grads_ = grads.slice_rows(0, static_cast<int64_t>(w.linear_grads));
  }
  if (precision == Precision::kBf16) {
    compute_memory_ = Buffer(w.values * 2);
    computes = view_of(static_cast<Bf16*>(compute_memory_.data()), {all});
    computes_ = computes.slice_rows(0, linear);
  }
  chunk_ranges_.assign(chunks.size(), {0, 0});
  for (const Placed& p : w.rows) {
    const ParameterRow& row = w.table[p.row];
    const int64_t count = row.count(), value_at = static_cast<int64_t>(p.value_at),
                  grad_at = static_cast<int64_t>(p.grad_at);
    const Shape shape{std::span<const int64_t>(row.shape)};
    Weight weight;
    weight.value = values.slice_rows(value_at, value_at + count).reshaped(shape);
    if (gradients && p.trained) weight.grad = grads.slice_rows(grad_at, grad_at + count).reshaped(shape);
    weight.compute =
        computes ? computes.slice_rows(value_at, value_at + count).reshaped(shape) : weight.value;
    parameters_.push_back({row, weight, first_flat + w.offsets[p.row], p.trained});
    if (!p.trained || (rings.gradients && row.layer >= 0)) continue;
    auto& range = chunk_ranges_[p.chunk];
    if (range.second == 0) range.first = p.grad_at;
    range.second = p.grad_at + static_cast<size_t>(count);
  }
}

Weight ParameterStore::stretch(size_t flat, size_t count) const {
  for (const Parameter& p : parameters_)
    if (p.trained && p.flat == flat) {
      const auto n = static_cast<int64_t>(count);
      Weight w = p.weight;
      w.value.shape = w.compute.shape = Shape{n};
      if (w.grad) w.grad.shape = Shape{n};
      return w;
    }
  STOKER_CHECK(false, "no row begins at {}", flat);
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
  for (const Parameter& p : parameters_) init_row(spec_, p.row, seed, std, p.weight.value.as<float>());
}

void ParameterStore::init_row(const ModelSpec& spec, const ParameterRow& row, uint64_t seed, float std,
                              float* out) {
  const int64_t n = row.count();
  if (row.role == ParameterRole::kBias) {
    std::memset(out, 0, static_cast<size_t>(n) * sizeof(float));
  } else if (row.role == ParameterRole::kNormGain) {
    std::fill_n(out, n, 1.0f);
  } else {
    const float scale = row.residual_output ? std / std::sqrt(2.0f * static_cast<float>(spec.layers)) : std;
    const PhiloxKey key{seed, hash64(row.name)};
    parallel_ranges(n, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) out[i] = scale * random_normal(key, static_cast<uint64_t>(i));
    });
  }
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
