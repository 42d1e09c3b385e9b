// spec/tensor_share.h
// What one of `size` tensor-parallel workers holds of a model: itself a model with heads / size heads, ffn / size hidden units and a
// part of the vocabulary, whose parameter table has the same rows, some of them narrower.
//   embedding, head                 rows of the vocabulary: worker t has [t V / size, (t+1) V / size)
//   q k v, gate up, their biases    rows: whole heads, or hidden units (GPT-2's c_attn: three stretches)
//   attention output, down          columns: the same heads and hidden units
//   gains, positions, other biases  whole: every worker has its own copy and updates it alike
// Pure. Errors: Usage when the model does not divide, naming the two fields (validate(LayoutSpec, ModelSpec))
#pragma once
#include <cstddef>
#include <vector>

#include "spec/parameter_table.h"

namespace stoker {

struct TensorPlace {
  int64_t size = 1, rank = 0;
  bool operator==(const TensorPlace&) const = default;
};

ModelSpec tensor_share(const ModelSpec& model, const TensorPlace& place);
// The first token of the worker's part of the vocabulary; for rank == size its end.
int64_t first_token(int64_t vocab, const TensorPlace& place);
// Elements of the shares of the workers before this one: where its parameters begin when all shares stand in one row.
size_t share_offset(const ModelSpec& model, const TensorPlace& place);

// Where a share's row lies in the whole one. Vectors have one column.
struct ShareCut {
  struct Stretch {
    int64_t begin = 0, end = 0;  // rows of the whole
    bool operator==(const Stretch&) const = default;
  };
  std::vector<Stretch> rows;  // one after the other in the share
  int64_t first_column = 0, columns = 0, whole_columns = 0, whole_rows = 0;
  bool replicated = true;  // every worker has all of it
  bool cuts_columns() const { return columns != whole_columns; }
};
// `row` is of the whole model's table.
ShareCut share_cut(const ModelSpec& model, const TensorPlace& place, const ParameterRow& row);
// whole -> share, and back into its place.
void take_share(const ShareCut& cut, const float* whole, float* share);
void put_share(const ShareCut& cut, const float* share, float* whole);

}  // namespace stoker
