#include "model/hf_weights.h"

#include <bit>
#include <cstring>
#include <set>

namespace stoker {
namespace {

float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, exponent = (h >> 10) & 31,
                 mantissa = h & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  const float magnitude = exponent ? std::bit_cast<float>(((exponent + 112) << 23) | (mantissa << 13))
                                   : static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

// Rounds to nearest even; what is too large becomes infinity.
uint16_t float_to_half(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and above
  if (magnitude < 0x38800000)  // below 2^-14: subnormal, in units of 2^-24; the sum rounds it
    return static_cast<uint16_t>(
        sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000));
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

float read_element(Dtype dtype, const std::byte* bytes, int64_t i) {
  if (dtype == Dtype::kF32) {
    float x;
    std::memcpy(&x, bytes + i * 4, 4);
    return x;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes + i * 2, 2);
  return dtype == Dtype::kBf16 ? to_float(Bf16{bits}) : half_to_float(bits);
}

bool is_known_buffer(std::string_view name, const ModelSpec& spec) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") ||
         name.ends_with("rotary_emb.inv_freq") || (name == "lm_head.weight" && spec.tied_embeddings);
}

// Index in the store (always [out, in]) of element i of the file.
int64_t stored_index(const ParameterRow& row, int64_t i) {
  if (!row.stored_transposed) return i;
  const int64_t out = row.shape[0], in = row.shape[1];
  return (i % out) * in + i / out;
}

}  // namespace

std::vector<int64_t> hf_shape(const ParameterRow& row) {
  return row.stored_transposed ? std::vector<int64_t>{row.shape[1], row.shape[0]} : row.shape;
}

void load_hf_weights(const io::SafetensorsSet& files, nn::ParameterStore& store) {
  std::set<std::string, std::less<>> used;  // by the whole model, whatever part of it this store holds
  for (const ParameterRow& row : parameter_table(store.spec())) {
    std::string_view name = row.name;
    if (!files.find(name) && name.starts_with("transformer.")) name = name.substr(sizeof("transformer.") - 1);
    used.emplace(name);
  }
  for (const nn::Parameter& p : store.parameters()) {
    std::string_view name = p.row.name;
    const auto* found = files.find(name);
    if (!found && name.starts_with("transformer."))
      found = files.find(name = name.substr(sizeof("transformer.") - 1));
    if (!found)
      fail(ErrorKind::kData, "{} has no tensor {}: it does not hold the model that config.json describes",
           files.path(), p.row.name);
    if (found->tensor->shape != hf_shape(p.row))
      fail(ErrorKind::kData, "{}: tensor {} has shape {}, config.json asks for {}", files.path(), name,
           to_string(Shape(std::span<const int64_t>(found->tensor->shape))),
           to_string(Shape(std::span<const int64_t>(hf_shape(p.row)))));
    const Dtype dtype = dtype_from_string(found->tensor->dtype);
    if (dtype != Dtype::kF32 && dtype != Dtype::kBf16 && dtype != Dtype::kF16)
      fail(ErrorKind::kData, "{}: tensor {} is {}: weights are read from F32, BF16 or F16", files.path(),
           name, found->tensor->dtype);
    const std::byte* bytes = found->bytes().data();
    float* out = p.weight.value.as<float>();
    for (int64_t i = 0; i < p.row.count(); ++i) out[stored_index(p.row, i)] = read_element(dtype, bytes, i);
  }
  for (const auto& [name, location] : files.tensors())
    if (!used.contains(location.tensor->name) && !is_known_buffer(name, store.spec()))
      fail(ErrorKind::kData,
           "{} holds a tensor {} that this model has no place for: is config.json of another model?",
           files.path(), name);
}

std::vector<std::byte> hf_tensor_bytes(const nn::Parameter& p, Dtype dtype) {
  STOKER_CHECK(dtype == Dtype::kF32 || dtype == Dtype::kBf16 || dtype == Dtype::kF16);
  std::vector<std::byte> bytes(static_cast<size_t>(p.row.count()) * dtype_size(dtype));
  const float* in = p.weight.value.as<float>();
  for (int64_t i = 0; i < p.row.count(); ++i) {
    const float x = in[stored_index(p.row, i)];
    if (dtype == Dtype::kF32) std::memcpy(bytes.data() + i * 4, &x, 4);
    else {
      const uint16_t bits = dtype == Dtype::kBf16 ? to_bf16(x).bits : float_to_half(x);
      std::memcpy(bytes.data() + i * 2, &bits, 2);
    }
  }
  return bytes;
}

}  // namespace stoker
