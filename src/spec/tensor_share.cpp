#include "spec/tensor_share.h"

#include <algorithm>

#include "base/error.h"

namespace stoker {
namespace {

int64_t part(const char* field, int64_t whole, int64_t size) {
  if (whole % size)
    fail(ErrorKind::kUsage,
         "model.{} ({}) is not a multiple of layout.tensor ({}): each tensor worker takes as many as the "
         "others",
         field, whole, size);
  return whole / size;
}

bool in_vocabulary(const ParameterRow& row) {
  return row.role == ParameterRole::kEmbedding || row.role == ParameterRole::kHead;
}

// each(row of the whole, row of the share)
template <typename Each>
void over_rows(const ShareCut& cut, const Each& each) {
  int64_t at = 0;
  for (const ShareCut::Stretch& s : cut.rows)
    for (int64_t r = s.begin; r < s.end; ++r) each(r, at++);
}

}  // namespace

int64_t first_token(int64_t vocab, const TensorPlace& place) { return place.rank * vocab / place.size; }

ModelSpec tensor_share(const ModelSpec& model, const TensorPlace& place) {
  STOKER_CHECK(place.size >= 1 && place.rank >= 0 && place.rank < place.size, "{} of {}", place.rank,
               place.size);
  ModelSpec share = model;
  if (place.size == 1) return share;
  share.heads = part("heads", model.heads, place.size);
  share.kv_heads = part("kv_heads", model.kv_heads, place.size);
  share.ffn = part("ffn", model.ffn, place.size);
  share.vocab = first_token(model.vocab, {place.size, place.rank + 1}) - first_token(model.vocab, place);
  if (share.vocab < 1)
    fail(ErrorKind::kUsage, "model.vocab is {} and layout.tensor is {}: each tensor worker takes some tokens",
         model.vocab, place.size);
  return share;
}

size_t share_offset(const ModelSpec& model, const TensorPlace& place) {
  size_t at = 0;
  for (int64_t r = 0; r < place.rank; ++r)
    at += static_cast<size_t>(parameter_count(tensor_share(model, {place.size, r})));
  return at;
}

ShareCut share_cut(const ModelSpec& model, const TensorPlace& place, const ParameterRow& row) {
  ShareCut cut;
  cut.whole_rows = row.shape[0];
  cut.columns = cut.whole_columns = row.shape.size() > 1 ? row.count() / row.shape[0] : 1;
  cut.rows = {{0, row.shape[0]}};
  const bool projects_back = row.residual_output;
  const bool output_bias = row.role == ParameterRole::kBias &&
                           (row.name.ends_with(".c_proj.bias") || row.name.find(".ln_") != std::string::npos);
  if (place.size == 1 || row.role == ParameterRole::kNormGain || row.role == ParameterRole::kPosition ||
      output_bias)
    return cut;
  cut.replicated = false;
  const ModelSpec share = tensor_share(model, place);
  if (in_vocabulary(row)) {
    cut.rows = {{first_token(model.vocab, place), first_token(model.vocab, {place.size, place.rank + 1})}};
  } else if (projects_back) {
    cut.columns = cut.whole_columns / place.size;
    cut.first_column = place.rank * cut.columns;
  } else if (row.name.find(".c_attn.") != std::string::npos) {
    cut.rows.clear();
    int64_t begin = 0;
    for (const auto& [all, mine] : {std::pair{model.heads, share.heads},
                                    {model.kv_heads, share.kv_heads},
                                    {model.kv_heads, share.kv_heads}}) {
      const int64_t first = begin + place.rank * mine * model.head_dim;
      cut.rows.push_back({first, first + mine * model.head_dim});
      begin += all * model.head_dim;
    }
  } else {
    const int64_t mine = cut.whole_rows / place.size;
    cut.rows = {{place.rank * mine, (place.rank + 1) * mine}};
  }
  return cut;
}

void take_share(const ShareCut& cut, const float* whole, float* share) {
  over_rows(cut, [&](int64_t from, int64_t to) {
    std::copy_n(whole + from * cut.whole_columns + cut.first_column, cut.columns, share + to * cut.columns);
  });
}

void put_share(const ShareCut& cut, const float* share, float* whole) {
  over_rows(cut, [&](int64_t to, int64_t from) {
    std::copy_n(share + from * cut.columns, cut.columns, whole + to * cut.whole_columns + cut.first_column);
  });
}

}  // namespace stoker
