#include "parallel/tensor_peers.h"

#include <cstring>

#include "base/threads.h"

namespace stoker::parallel {
namespace {

std::span<std::byte> bytes_of(const TensorView& v) { return {static_cast<std::byte*>(v.data), v.bytes()}; }

template <typename T>
void round_rows(const float* in, const float* bias, const TensorView& out) {
  const int64_t width = out.columns();
  parallel_ranges(out.rows(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin * width; i < end * width; ++i)
      out.as<T>()[i] = from_float<T>(bias ? in[i] + bias[i % width] : in[i]);
  });
}

}  // namespace

// n + 1 offsets of the workers' rows, in units of `width`.
std::vector<size_t> CommTensorPeers::row_cuts(int64_t rows, size_t width) const {
  std::vector<size_t> cuts;
  for (int64_t w = 0; w <= group_.size(); ++w)
    cuts.push_back(static_cast<size_t>(w * rows / group_.size()) * width);
  return cuts;
}

void CommTensorPeers::sum(TensorView partial, TensorView bias, TensorView out) {
  auto* data = partial.as<float>();
  const auto spans = comm::even_spans(group_.size(), group_.size());
  const auto cuts = row_cuts(partial.rows(), static_cast<size_t>(partial.columns()));
  const auto count = static_cast<size_t>(partial.count());
  const float* summed = data;
  if (split_rows_) {
    summed = data + cuts[static_cast<size_t>(group_.rank())];
    group_.tree_reduce_scatter({&data, 1}, count, spans, const_cast<float*>(summed), cuts);
  } else {
    group_.tree_all_reduce({&data, 1}, count, spans, data, cuts);
  }
  STOKER_CHECK(
      out.columns() == partial.columns() && out.rows() * (split_rows_ ? group_.size() : 1) == partial.rows(),
      "{} into {}", to_string(partial.shape), to_string(out.shape));
  const float* add = bias ? bias.as<float>() : nullptr;
  if (out.dtype == Dtype::kF32) round_rows<float>(summed, add, out);
  else round_rows<Bf16>(summed, add, out);
}

void CommTensorPeers::gather_rows(TensorView mine, TensorView all) {
  STOKER_CHECK(mine.dtype == all.dtype && mine.count() * group_.size() == all.count());
  const auto cuts = row_cuts(all.rows(), static_cast<size_t>(all.columns()) * dtype_size(all.dtype));
  std::memcpy(static_cast<std::byte*>(all.data) + cuts[static_cast<size_t>(group_.rank())], mine.data,
              mine.bytes());
  group_.all_gather_parts(bytes_of(all), cuts);
}

void CommTensorPeers::gather(std::span<const std::byte> mine, std::span<std::byte> all) {
  group_.all_gather(mine, all);
}

void CommTensorPeers::sum(std::span<float> partial) { group_.all_reduce(partial); }

}  // namespace stoker::parallel
