// tensor/dtype.h
// Element types. Names are those of safetensors ("F32", "BF16" ...).
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace stoker {

enum class Dtype : uint8_t { kF32, kBf16, kF16, kF64, kI32, kI64, kU8 };

size_t dtype_size(Dtype dtype);
std::string_view to_string(Dtype dtype);
Dtype dtype_from_string(std::string_view name);  // throws Data naming the types known

}  // namespace stoker
