// model/hf_weights.h
// Weights between a ParameterStore and Hugging Face files: same names; GPT-2's Conv1D matrices are transposed, GPT-2 files
// without the "transformer." prefix (openai-community/gpt2) are read too.
// Reads     F32, BF16 and F16 tensors; other tensors in the file are ignored only if they are known buffers (attn.bias,
//           attn.masked_bias, rotary_emb.inv_freq, or lm_head.weight of a tied model)
// Errors    Data, naming file and tensor: missing, unknown, wrong shape or type
#pragma once
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "nn/parameter_store.h"
#include "spec/tensor_share.h"

namespace stoker {

void load_hf_weights(const io::SafetensorsSet& files, nn::ParameterStore& store);
// The same for a store of a tensor-parallel share (spec/tensor_share.h) of `whole`; takes the memory of one whole tensor.
void load_hf_weights(const io::SafetensorsSet& files, const ModelSpec& whole, const TensorPlace& place,
                     nn::ParameterStore& store);

// One parameter as its file holds it (transposed where stored_transposed), in `dtype` (F32, BF16 or F16; rounded to nearest even).
std::vector<std::byte> hf_tensor_bytes(const nn::Parameter& parameter, Dtype dtype);
std::vector<int64_t> hf_shape(const ParameterRow& row);

}  // namespace stoker
