#include "base/cpu_features.h"
#include "ops/cpu/attention_candidates.h"
#include "ops/ref/ref.h"

namespace stoker::ops {
namespace {

template <typename Args>
std::string refuses_bf16(const Args& a) {
  if (!cpu_has(Isa::kAvx512Bf16)) return "this processor has no AVX-512-BF16";
  if (a.qkv.dtype != Dtype::kBf16) return "operands are f32";
  return a.qkv.shape[3] % 2 ? "head_dim is odd" : std::string();
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

}  // namespace stoker::ops
