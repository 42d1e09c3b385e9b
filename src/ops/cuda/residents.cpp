#include <cmath>

#include "base/error.h"
#include "ops/cuda/candidates.h"
#include "ops/cuda/kernels.h"
#include "ops/cuda/matrix_product.h"
#include "tensor/device_memory.h"

namespace stoker::ops::cuda {
namespace {

void check(const char* error, const char* op) {
  if (error) fail(ErrorKind::kDevice, "CUDA: {} could not be started: {}", op, error);
}

const float* floats(const TensorView& t) { return t ? t.as<float>() : nullptr; }
bool is_bf16(const TensorView& t) { return t.dtype == Dtype::kBf16; }

// Device memory for one call at a time; calls of one Context run in order on one stream, so they may share
// it.
struct ScratchCache final : Context::Cache {
  DeviceBuffer memory;
  float* take(Device device, int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(float);
    if (memory.bytes() < bytes || !(memory.device() == device)) memory = DeviceBuffer(device, bytes);
    return static_cast<float*>(memory.data());
  }
};

int64_t partial_blocks(int64_t rows) { return (rows + kRowsPerPartial - 1) / kRowsPerPartial; }

template <typename Args>
std::string unusable(const Args&) {
  return why_unusable(DeviceKind::kCuda);
}

std::string same_types(const TensorView& a, const TensorView& b) {
  if (std::string why = why_unusable(DeviceKind::kCuda); !why.empty()) return why;
  return a.dtype == b.dtype ? std::string() : "operands differ in type";
}

void linear_forward(Context& context, const LinearForward& a) {
  const int64_t m = a.x.rows(), n = a.weight.shape[0], k = a.x.columns();
  auto& products = context.cache<ProductCache>();
  const Device device = a.x.device;
  if (!a.bias) {
    products.run(device, context.stream(), {m, n, k, false, true, false, a.x.dtype, a.y.dtype, 0}, a.x.data,
                 a.weight.data, a.y.data);
    return;
  }
  // The sum stays in f32 until the bias is in, so the result is rounded once.
  void* sum = a.y.dtype == Dtype::kF32 ? a.y.data : context.cache<ScratchCache>().take(device, m * n);
  products.run(device, context.stream(), {m, n, k, false, true, false, a.x.dtype, Dtype::kF32, 0}, a.x.data,
               a.weight.data, sum);
  if (m > 0)
    check(launch_add_bias(static_cast<const float*>(sum), floats(a.bias), a.y.data, m, n, is_bf16(a.y),
                          context.stream().handle),
          "linear_forward");
}

void linear_backward_input(Context& context, const LinearBackwardInput& a) {
  const ProductShape shape{a.dy.rows(),
                           a.weight.shape[1],
                           a.dy.columns(),
                           false,
                           false,
                           a.accumulate == Accumulate::kAdd,
                           a.dy.dtype,
                           a.dx.dtype,
                           0};
  context.cache<ProductCache>().run(a.dx.device, context.stream(), shape, a.dy.data, a.weight.data,
                                    a.dx.data);
}

void linear_backward_weight(Context& context, const LinearBackwardWeight& a) {
  const int64_t rows = a.dy.rows(), n = a.dy.columns();
  const bool add = a.accumulate == Accumulate::kAdd;
  const ProductShape shape{n, a.x.columns(), rows, true, false, add, a.dy.dtype, Dtype::kF32, 0};
  context.cache<ProductCache>().run(a.dweight.device, context.stream(), shape, a.dy.data, a.x.data,
                                    a.dweight.data);
  if (!a.dbias) return;
  float* partial = context.cache<ScratchCache>().take(a.dy.device, partial_blocks(rows) * n);
  if (rows > 0)
    check(launch_column_partials(a.dy.data, partial, rows, n, is_bf16(a.dy), context.stream().handle),
          "linear_backward_weight");
  check(launch_fold_partials(partial, a.dbias.as<float>(), partial_blocks(rows), n, add,
                             context.stream().handle),
        "linear_backward_weight");
}

void norm_forward(Context& context, const NormForward& a) {
  if (a.x.count() == 0) return;
  const bool layer = a.form == NormForm::kLayer;
  NormForwardKernel k{};
  k.x = a.x.data, k.delta = a.delta.data, k.x_out = a.x_out.data, k.y = a.y.data;
  k.gain = floats(a.gain), k.bias = floats(a.bias);
  k.rstd = a.rstd.as<float>(), k.mean = layer ? a.mean.as<float>() : nullptr;
  k.rows = a.x.rows(), k.columns = a.x.columns(), k.eps = a.eps;
  k.layer = layer, k.bf16 = is_bf16(a.x);
  check(launch_norm_forward(k, context.stream().handle), "norm_forward");
}

void norm_backward(Context& context, const NormBackward& a) {
  const int64_t rows = a.x.rows(), d = a.x.columns(), blocks = partial_blocks(rows);
  if (a.x.count() == 0) return;
  const bool layer = a.form == NormForm::kLayer;
  float* partial = context.cache<ScratchCache>().take(a.x.device, blocks * d * (a.dbias ? 2 : 1));
  NormBackwardKernel k{};
  k.x = a.x.data, k.dy = a.dy.data, k.dx = a.dx.data;
  k.gain = floats(a.gain), k.rstd = floats(a.rstd), k.mean = layer ? floats(a.mean) : nullptr;
  k.partial_gain = partial, k.partial_bias = a.dbias ? partial + blocks * d : nullptr;
  k.rows = rows, k.columns = d;
  k.layer = layer, k.add_dx = a.dx_accumulate == Accumulate::kAdd, k.bf16 = is_bf16(a.x);
  const StreamHandle stream = context.stream().handle;
  check(launch_norm_backward(k, stream), "norm_backward");
  check(launch_fold_partials(k.partial_gain, a.dgain.as<float>(), blocks, d, true, stream), "norm_backward");
  if (a.dbias)
    check(launch_fold_partials(k.partial_bias, a.dbias.as<float>(), blocks, d, true, stream),
          "norm_backward");
}

void adamw(Context& context, const AdamW& a) {
  if (a.param.count() == 0) return;
  AdamWKernel k{};
  k.param = a.param.as<float>(), k.m = a.m.as<float>(), k.v = a.v.as<float>(), k.grad = floats(a.grad);
  k.copy = a.copy.data, k.count = a.param.count();
  k.lr = a.lr, k.beta1 = a.beta1, k.beta2 = a.beta2, k.eps = a.eps, k.decay = 1 - a.lr * a.weight_decay;
  k.grad_scale = a.grad_scale;
  const auto step = static_cast<double>(a.step);
  k.correct1 = static_cast<float>(1 / (1 - std::pow(double{a.beta1}, step)));
  k.correct2 = static_cast<float>(1 / (1 - std::pow(double{a.beta2}, step)));
  check(launch_adamw(k, context.stream().handle), "adamw");
}

constexpr Candidate<LinearForward> kLinearForward[] = {
    {"cublaslt", [](const LinearForward& a) { return same_types(a.x, a.weight); }, linear_forward}};
constexpr Candidate<LinearBackwardInput> kLinearBackwardInput[] = {
    {"cublaslt", [](const LinearBackwardInput& a) { return same_types(a.dy, a.weight); },
     linear_backward_input}};
constexpr Candidate<LinearBackwardWeight> kLinearBackwardWeight[] = {
    {"cublaslt", [](const LinearBackwardWeight& a) { return same_types(a.dy, a.x); },
     linear_backward_weight}};
constexpr Candidate<NormForward> kNormForward[] = {
    {"cuda", [](const NormForward& a) { return same_types(a.x, a.y); }, norm_forward}};
constexpr Candidate<NormBackward> kNormBackward[] = {
    {"cuda", [](const NormBackward& a) { return same_types(a.x, a.dy); }, norm_backward}};
constexpr Candidate<AdamW> kAdamW[] = {{"cuda", unusable<AdamW>, adamw}};

}  // namespace

std::span<const Candidate<LinearForward>> linear_forward_candidates() { return kLinearForward; }
std::span<const Candidate<LinearBackwardInput>> linear_backward_input_candidates() {
  return kLinearBackwardInput;
}
std::span<const Candidate<LinearBackwardWeight>> linear_backward_weight_candidates() {
  return kLinearBackwardWeight;
}
std::span<const Candidate<NormForward>> norm_forward_candidates() { return kNormForward; }
std::span<const Candidate<NormBackward>> norm_backward_candidates() { return kNormBackward; }
std::span<const Candidate<AdamW>> adamw_candidates() { return kAdamW; }

}  // namespace stoker::ops::cuda
