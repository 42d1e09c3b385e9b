// Matrix products through oneDNN, compiled once per shape and kept in the Context.
#include <algorithm>
#include <dnnl.hpp>
#include <map>
#include <optional>
#include <tuple>

#include "ops/cpu/rowwise.h"
#include "ops/cuda/candidates.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace cpu {
namespace {

using dnnl::memory;

struct ProductShape {
  int64_t m, n, k;
  bool a_transposed, b_transposed, add, bias;  // a stored [k,m], b stored [n,k]
  Dtype in, out;
  auto operator<=>(const ProductShape&) const = default;
};

// Long products read their second operand so often that a copy in the layout oneDNN likes best pays: 5 to 10 % faster at
// 4096 rows, copying included. Below this many rows the copy costs what it brings (docs/decisions/031-packed-products.md).
constexpr int64_t kPackFrom = 1024;

struct Product {
  dnnl::matmul matmul;
  memory a, b, c, bias;
  std::optional<dnnl::reorder> pack;  // b into packed, whose memory is the Context's scratch
  memory packed;
};

struct ProductCache final : Context::Cache {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<ProductShape, Product> products;

  static memory::data_type type(Dtype d) {
    return d == Dtype::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
  }

  Product& get(const ProductShape& s) {
    if (const auto found = products.find(s); found != products.end()) return found->second;
    const memory::desc a({s.m, s.k}, type(s.in),
                         s.a_transposed ? memory::dims{1, s.m} : memory::dims{s.k, 1});
    const memory::desc b({s.k, s.n}, type(s.in),
                         s.b_transposed ? memory::dims{1, s.k} : memory::dims{s.n, 1});
    const memory::desc c({s.m, s.n}, type(s.out), memory::dims{s.n, 1});
    const memory::desc bias({1, s.n}, memory::data_type::f32, memory::dims{s.n, 1});
    dnnl::primitive_attr attributes;
    if (s.add) {
      dnnl::post_ops post;
      post.append_sum(1.0f);
      attributes.set_post_ops(post);
    }
    const memory::desc any({s.k, s.n}, type(s.in), memory::format_tag::any);
    const memory::desc& second = s.m >= kPackFrom ? any : b;
    const auto desc = s.bias ? dnnl::matmul::desc(a, second, bias, c) : dnnl::matmul::desc(a, second, c);
    const dnnl::matmul::primitive_desc compiled(desc, attributes, engine);
    Product product{dnnl::matmul(compiled),
                    memory(a, engine, nullptr),
                    memory(b, engine, nullptr),
                    memory(c, engine, nullptr),
                    memory(bias, engine, nullptr),
                    std::nullopt,
                    memory()};
    if (compiled.weights_desc() != b) {
      product.packed = memory(compiled.weights_desc(), engine, nullptr);
      product.pack = dnnl::reorder(dnnl::reorder::primitive_desc(engine, b, engine, compiled.weights_desc()));
    }
    return products.emplace(s, std::move(product)).first->second;
  }

  void run(Context& context, const ProductShape& shape, const void* a, const void* b, void* c,
           const void* bias) {
    Product& p = get(shape);
    p.a.set_data_handle(const_cast<void*>(a));
    p.b.set_data_handle(const_cast<void*>(b));
    p.c.set_data_handle(c);
    if (p.pack) {
      p.packed.set_data_handle(context.scratch(p.packed.get_desc().get_size()));
      p.pack->execute(stream, p.b, p.packed);
    }
    std::unordered_map<int, memory> arguments{
        {DNNL_ARG_SRC, p.a}, {DNNL_ARG_WEIGHTS, p.pack ? p.packed : p.b}, {DNNL_ARG_DST, p.c}};
    if (bias) {
      p.bias.set_data_handle(const_cast<void*>(bias));
      arguments.emplace(DNNL_ARG_BIAS, p.bias);
    }
    p.matmul.execute(stream, arguments);
    stream.wait();
  }
};

void forward(Context& context, const LinearForward& a) {
  const ProductShape s{a.x.rows(), a.weight.shape[0],         a.x.columns(), false,    true,
                       false,      static_cast<bool>(a.bias), a.x.dtype,     a.y.dtype};
  context.cache<ProductCache>().run(context, s, a.x.data, a.weight.data, a.y.data, a.bias.data);
}

void backward_input(Context& context, const LinearBackwardInput& a) {
  const ProductShape s{
      a.dy.rows(), a.weight.shape[1], a.dy.columns(), false, false, a.accumulate == Accumulate::kAdd,
      false,       a.dy.dtype,        a.dx.dtype};
  context.cache<ProductCache>().run(context, s, a.dy.data, a.weight.data, a.dx.data, nullptr);
}

void backward_weight(Context& context, const LinearBackwardWeight& a) {
  const ProductShape s{a.dy.columns(), a.x.columns(), a.dy.rows(),
                       true,           false,         a.accumulate == Accumulate::kAdd,
                       false,          a.dy.dtype,    Dtype::kF32};
  context.cache<ProductCache>().run(context, s, a.dy.data, a.x.data, a.dweight.data, nullptr);
  if (a.dbias) bias_gradient(context, a);
}

std::string types_differ(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype ? std::string() : "operands differ in type";
}

}  // namespace
}  // namespace cpu

namespace {
constexpr Candidate<LinearForward> kForward[] = {
    {"onednn", [](const LinearForward& a) { return cpu::types_differ(a.x, a.weight); }, cpu::forward},
    {"ref", nullptr, ref::linear_forward}};
constexpr Candidate<LinearBackwardInput> kBackwardInput[] = {
    {"onednn", [](const LinearBackwardInput& a) { return cpu::types_differ(a.dy, a.weight); },
     cpu::backward_input},
    {"ref", nullptr, ref::linear_backward_input}};
constexpr Candidate<LinearBackwardWeight> kBackwardWeight[] = {
    {"onednn", [](const LinearBackwardWeight& a) { return cpu::types_differ(a.dy, a.x); },
     cpu::backward_weight},
    {"ref", nullptr, ref::linear_backward_weight}};
}  // namespace

void linear_forward(Context& context, const LinearForward& a) {
  STOKER_CHECK(a.weight.shape.rank() == 2 && a.x.columns() == a.weight.shape[1] &&
                   a.y.columns() == a.weight.shape[0] && a.x.rows() == a.y.rows(),
               "x {} weight {} y {}", to_string(a.x.shape), to_string(a.weight.shape), to_string(a.y.shape));
  context.run("linear_forward", std::span<const Candidate<LinearForward>>(kForward), a,
              cuda::linear_forward_candidates());
}
void linear_backward_input(Context& context, const LinearBackwardInput& a) {
  STOKER_CHECK(a.weight.shape.rank() == 2 && a.dx.columns() == a.weight.shape[1] &&
               a.dy.columns() == a.weight.shape[0] && a.dx.rows() == a.dy.rows());
  context.run("linear_backward_input", std::span<const Candidate<LinearBackwardInput>>(kBackwardInput), a,
              cuda::linear_backward_input_candidates());
}
void linear_backward_weight(Context& context, const LinearBackwardWeight& a) {
  STOKER_CHECK(a.dweight.shape.rank() == 2 && a.x.columns() == a.dweight.shape[1] &&
               a.dy.columns() == a.dweight.shape[0] && a.x.rows() == a.dy.rows() &&
               a.dweight.dtype == Dtype::kF32);
  context.run("linear_backward_weight", std::span<const Candidate<LinearBackwardWeight>>(kBackwardWeight), a,
              cuda::linear_backward_weight_candidates());
}

size_t linear_scratch_bytes(int64_t m, int64_t n, int64_t k, Dtype dtype) {
  const int64_t weight = m >= cpu::kPackFrom ? n * k : 0, x = n >= cpu::kPackFrom ? m * k : 0;
  return static_cast<size_t>(std::max(weight, x)) * dtype_size(dtype);
}

}  // namespace stoker::ops
