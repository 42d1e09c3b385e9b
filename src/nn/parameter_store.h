// nn/parameter_store.h
// All parameters of a model, allocated by walking spec/parameter_table: one flat f32 array of values (the master
// weights), one of gradients, and in bf16 precision one of rounded copies that the matrix products read.
// Layout       the table's order without gaps, so that adjacent rows form the fused matrices that Weight names. A store may hold only
//              the rows of some chunks of the model (spec/parameter_sections.h), chunk after chunk; Parameter::flat says where a row
//              is in the array of the whole model. Rows that a chunk only reads have values and copies, outside the flat arrays
// Rings        memory that all layers share by turns, two layers at a time (the store's layers, chunk after chunk, alternate): gradients
//              that leave as soon as a layer has made them, values that come when a layer needs them. values(), grads(), computes()
//              are then of the other rows
// Initial      init(): normal(0, std) by counter, keyed by (seed, name): the same for any layout. Residual outputs
//              std / sqrt(2 L), gains 1, biases 0 (Radford et al. 2019)
// Invariant    after any change of values call refresh() (optimizers write the copy themselves)
#pragma once
#include <string_view>
#include <utility>
#include <vector>

#include "ops/context.h"
#include "spec/parameter_sections.h"
#include "spec/run_spec.h"
#include "tensor/buffer.h"

namespace stoker::nn {

struct Weight {
  TensorView value, grad;  // f32
  TensorView compute;      // what products read: bf16 copy, or value
  explicit operator bool() const { return static_cast<bool>(value); }
};

struct Parameter {
  ParameterRow row;
  Weight weight;        // grad is empty for a row that is only read
  size_t flat = 0;      // offset in the whole model's array
  bool trained = true;  // in values() and grads()
};

struct StoreRings {
  bool gradients = false, values = false;
};

class ParameterStore {
 public:
  ParameterStore(const ModelSpec& spec, Precision precision, bool gradients);
  // first_flat: where this model begins when it is one of several in a row (spec/tensor_share.h).
  ParameterStore(const ModelSpec& spec, Precision precision, bool gradients,
                 const std::vector<ChunkSpec>& chunks, StoreRings rings = {}, size_t first_flat = 0);
  static size_t bytes(const ModelSpec& spec, Precision precision, bool gradients,
                      const std::vector<ChunkSpec>& chunks, StoreRings rings = {});

  const ModelSpec& spec() const { return spec_; }
  Precision precision() const { return precision_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  // Empty Weight when the model has no such parameter.
  Weight find(std::string_view name) const;
  // The rows `first` .. `last` of the table, which must be adjacent and equally wide, as one matrix or vector.
  Weight fused(std::string_view first, std::string_view last) const;

  TensorView values() const { return values_; }  // flat f32
  TensorView grads() const { return grads_; }
  // The trained row that begins at `flat` and what follows it, `count` elements, as one array.
  Weight stretch(size_t flat, size_t count) const;
  // The part of the flat arrays that holds chunk i, [begin, end).
  std::pair<size_t, size_t> chunk_range(size_t i) const { return chunk_ranges_.at(i); }
  TensorView computes() const { return computes_; }  // flat bf16; empty in fp32
  void init(uint64_t seed, float std);
  // What init() gives this row.
  static void init_row(const ModelSpec& spec, const ParameterRow& row, uint64_t seed, float std, float* out);
  void refresh(ops::Context& context);
  void zero_grads();
  void zero_grads(size_t begin, size_t end);
  // The copy of every row that is only read, after its value changed.
  void refresh_read_only(ops::Context& context);

 private:
  int64_t index(std::string_view name) const;
  ModelSpec spec_;
  Precision precision_;
  Buffer value_memory_, grad_memory_, compute_memory_;
  TensorView values_, grads_, computes_;
  std::vector<Parameter> parameters_;
  std::vector<std::pair<size_t, size_t>> chunk_ranges_;
};

}  // namespace stoker::nn
