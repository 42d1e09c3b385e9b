#include "base/cpu_features.h"
#include "ops/cpu/attention_candidates.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace {

template <typename Args>
const TensorView& operands(const Args& a) {
  if constexpr (requires { a.at; }) return a.at.qkv;
  else return a.qkv;
}
template <typename Args>
std::string refuses_bf16(const Args& a) {
  if (!cpu_has(Isa::kAvx512Bf16)) return "this processor has no AVX-512-BF16";
  if (operands(a).dtype != Dtype::kBf16) return "operands are f32";
  return operands(a).shape[3] % 2 ? "head_dim is odd" : std::string();
}
template <typename Args, Isa isa>
std::string needs(const Args&) {
  return cpu_has(isa)          ? std::string()
         : isa == Isa::kAvx512 ? "this processor has no AVX-512"
                               : "this processor has no AVX2";
}

constexpr Candidate<AttentionForward> kForward[] = {
    {"avx512bf16", refuses_bf16<AttentionForward>, cpu::attention_forward_avx512bf16},
    {"avx512", needs<AttentionForward, Isa::kAvx512>, cpu::attention_forward_avx512},
    {"avx2", needs<AttentionForward, Isa::kAvx2>, cpu::attention_forward_avx2},
    {"ref", nullptr, ref::attention_forward}};
constexpr Candidate<AttentionBackward> kBackward[] = {
    {"avx512bf16", refuses_bf16<AttentionBackward>, cpu::attention_backward_avx512bf16},
    {"avx512", needs<AttentionBackward, Isa::kAvx512>, cpu::attention_backward_avx512},
    {"avx2", needs<AttentionBackward, Isa::kAvx2>, cpu::attention_backward_avx2},
    {"ref", nullptr, ref::attention_backward}};
constexpr Candidate<AttentionPartForward> kPartForward[] = {
    {"avx512bf16", refuses_bf16<AttentionPartForward>, cpu::attention_part_forward_avx512bf16},
    {"avx512", needs<AttentionPartForward, Isa::kAvx512>, cpu::attention_part_forward_avx512},
    {"avx2", needs<AttentionPartForward, Isa::kAvx2>, cpu::attention_part_forward_avx2},
    {"ref", nullptr, ref::attention_part_forward}};
constexpr Candidate<AttentionPartBackward> kPartBackward[] = {
    {"avx512bf16", refuses_bf16<AttentionPartBackward>, cpu::attention_part_backward_avx512bf16},
    {"avx512", needs<AttentionPartBackward, Isa::kAvx512>, cpu::attention_part_backward_avx512},
    {"avx2", needs<AttentionPartBackward, Isa::kAvx2>, cpu::attention_part_backward_avx2},
    {"ref", nullptr, ref::attention_part_backward}};

void check(const AttentionStretch& s, const TensorView& out, const TensorView& lse) {
  STOKER_CHECK(s.qkv.shape.rank() == 4 && s.kv.shape.rank() == 4 && s.qkv.dtype == s.kv.dtype &&
                   s.qkv.shape[2] == s.heads + 2 * s.kv_heads && s.kv.shape[2] == 2 * s.kv_heads &&
                   s.heads % s.kv_heads == 0 && s.qkv.shape[0] == s.kv.shape[0] &&
                   s.qkv.shape[3] == s.kv.shape[3],
               "qkv {} kv {}", to_string(s.qkv.shape), to_string(s.kv.shape));
  STOKER_CHECK(s.query >= 0 && s.queries > 0 && s.query + s.queries <= s.qkv.shape[1] && s.key >= 0 &&
               s.keys > 0 && s.key + s.keys <= s.kv.shape[1]);
  STOKER_CHECK(out.count() == s.qkv.shape[0] * s.qkv.shape[1] * s.heads * s.qkv.shape[3] &&
               lse.count() == s.qkv.shape[0] * s.heads * s.qkv.shape[1]);
  STOKER_CHECK(!s.document_start || s.document_start.count() == s.qkv.shape[0] * s.qkv.shape[1]);
}

template <typename Args>
void check(const Args& a) {
  STOKER_CHECK(
      a.qkv.shape.rank() == 4 && a.qkv.shape[2] == a.heads + 2 * a.kv_heads && a.heads % a.kv_heads == 0,
      "qkv {}", to_string(a.qkv.shape));
  STOKER_CHECK(a.out.count() == a.qkv.shape[0] * a.qkv.shape[1] * a.heads * a.qkv.shape[3] &&
               a.lse.count() == a.qkv.shape[0] * a.heads * a.qkv.shape[1]);
  STOKER_CHECK(!a.document_start || a.document_start.count() == a.qkv.shape[0] * a.qkv.shape[1]);
}

}  // namespace

void attention_forward(Context& context, const AttentionForward& a) {
  check(a);
  context.run("attention_forward", std::span<const Candidate<AttentionForward>>(kForward), a);
}
void attention_backward(Context& context, const AttentionBackward& a) {
  check(a);
  STOKER_CHECK(a.dout.count() == a.out.count() && a.dqkv.count() == a.qkv.count());
  context.run("attention_backward", std::span<const Candidate<AttentionBackward>>(kBackward), a);
}

void attention_part_forward(Context& context, const AttentionPartForward& a) {
  check(a.at, a.out, a.lse);
  STOKER_CHECK(a.out.dtype == Dtype::kF32);
  context.run("attention_part_forward", std::span<const Candidate<AttentionPartForward>>(kPartForward), a);
}
void attention_part_backward(Context& context, const AttentionPartBackward& a) {
  check(a.at, a.out, a.lse);
  STOKER_CHECK(a.dout.count() == a.out.count() && a.dq.count() == a.out.count() &&
               a.dkv.count() == a.at.kv.count() && a.dq.dtype == Dtype::kF32 && a.dkv.dtype == Dtype::kF32);
  context.run("attention_part_backward", std::span<const Candidate<AttentionPartBackward>>(kPartBackward), a);
}

}  // namespace stoker::ops
