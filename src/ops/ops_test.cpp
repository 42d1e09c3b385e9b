// Every fast candidate against ref on the same inputs, over shapes with awkward sizes.
// Tolerances: outputs are rounded once to their type, half a unit in the last place: u = 2^-9 (bf16) or 2^-24
// (f32) relative. Sums of n f32 products differ from exact ones by at most n * 2^-24 * sum|terms|; the cases
// below bound sum|terms| by their scale.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/cpu_features.h"
#include "base/random.h"
#include "ops/activation.h"
#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/element.h"
#include "ops/embedding.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/rope.h"
#include "ops/update.h"
#include "tensor/device_memory.h"

namespace stoker::ops {
namespace {

// Owns tensors of a case, on one device; every random tensor has a stream of its own, the same on any device.
class Memory {
 public:
  explicit Memory(Device device = {}) : device_(device) {}
  TensorView zeros(Shape shape, Dtype dtype) { return make(device_, shape, dtype); }
  TensorView normal(Shape shape, Dtype dtype, float scale = 1) {
    const TensorView t = make({}, shape, dtype);
    const uint64_t stream = ++stream_;
    for (int64_t i = 0; i < t.count(); ++i)
      put(t, i, scale * random_normal({1, stream}, static_cast<uint64_t>(i)));
    return there(t);
  }
  TensorView positive(Shape shape, Dtype dtype) {
    const TensorView t = here(normal(shape, dtype));
    for (int64_t i = 0; i < t.count(); ++i) put(t, i, std::abs(get(t, i)));
    return there(t);
  }
  TensorView ints(Shape shape, int64_t low, int64_t high) {
    const TensorView t = make({}, shape, Dtype::kI32);
    const uint64_t stream = ++stream_;
    for (int64_t i = 0; i < t.count(); ++i)
      t.as<int32_t>()[i] =
          static_cast<int32_t>(low + static_cast<int64_t>(random_u64({1, stream}, static_cast<uint64_t>(i)) %
                                                          static_cast<uint64_t>(high - low)));
    return there(t);
  }
  TensorView here(TensorView t) { return on({}, t); }  // on the CPU, for looking at
  TensorView there(TensorView t) { return on(device_, t); }

 private:
  TensorView make(Device device, Shape shape, Dtype dtype) {
    const size_t bytes = static_cast<size_t>(shape.count()) * dtype_size(dtype) + 64;
    return {buffers_.emplace_back(device, bytes).data(), shape, dtype, device};
  }
  TensorView on(Device device, TensorView t) {
    if (t.device == device) return t;
    const TensorView copy = make(device, t.shape, t.dtype);
    copy_tensor(t, copy);
    synchronize(device_);
    return copy;
  }
  Device device_;
  std::vector<DeviceBuffer> buffers_;
  uint64_t stream_ = 0;
};

double unit(Dtype d) { return d == Dtype::kBf16 ? 0x1p-9 : 0x1p-24; }

void expect_near(TensorView got, TensorView want, double tolerance, const std::string& what) {
  ASSERT_EQ(got.shape, want.shape) << what;
  for (int64_t i = 0; i < got.count(); ++i)
    ASSERT_NEAR(get(got, i), get(want, i),
                tolerance + unit(want.dtype) * 2 * std::max(std::abs(get(got, i)), std::abs(get(want, i))))
        << what << " element " << i;
}

// Cases that ran on a GPU, or would have (TEST(Cuda, ...) at the end tells).
int cuda_cases = 0, cuda_cases_run = 0;

// Runs `body` once with ref and once with each candidate that this machine has; body returns its outputs.
// `cuda` names the op's candidate on a GPU: the same body then runs there too.
using Body = std::function<std::vector<TensorView>(Context&, Memory&)>;
void compare(const std::string& op, const std::vector<std::string>& candidates, double tolerance,
             const Body& body, const std::string& cuda = {}) {
  Memory ref_memory;
  Context ref_context;
  ref_context.force(op + "=ref");
  const std::vector<TensorView> want = body(ref_context, ref_memory);
  ASSERT_EQ(ref_context.choices().at(op).candidate, "ref");
  for (const std::string& name : candidates) {
    Memory memory;
    Context context;
    context.force(op + "=" + name);
    std::vector<TensorView> got;
    try {
      got = body(context, memory);
    } catch (const Error& e) {
      ASSERT_EQ(e.kind(), ErrorKind::kUsage) << e.what();
      if (cpu_has(Isa::kAvx512Bf16))
        ADD_FAILURE() << "this machine has every instruction set, yet " << e.what();
      continue;
    }
    EXPECT_EQ(context.choices().at(op).candidate, name);
    for (size_t i = 0; i < want.size(); ++i)
      expect_near(got[i], want[i], tolerance, op + "=" + name + " output " + std::to_string(i));
  }
  if (cuda.empty()) return;
  ++cuda_cases;
  if (!why_unusable(DeviceKind::kCuda).empty()) return;
  Memory memory({DeviceKind::kCuda, 0});
  Context context;
  context.force(op + "=" + cuda);
  const std::vector<TensorView> got = body(context, memory);
  synchronize({DeviceKind::kCuda, 0});
  for (size_t i = 0; i < want.size(); ++i)
    expect_near(memory.here(got[i]), want[i], tolerance, op + "=" + cuda + " output " + std::to_string(i));
  ++cuda_cases_run;
}

const std::vector<std::string> kRowwise{"avx512", "avx2"};

class ByType : public testing::TestWithParam<Dtype> {};
INSTANTIATE_TEST_SUITE_P(Types, ByType, testing::Values(Dtype::kF32, Dtype::kBf16),
                         [](const auto& i) { return std::string(to_string(i.param)); });

TEST_P(ByType, Linear) {
  const Dtype t = GetParam();
  // The last two are long enough for the packed products, in each direction.
  for (const auto& [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1},
                                {7, 33, 17},
                                {64, 48, 96},
                                {1100, 40, 72},
                                {48, 1030, 24}}) {
    const double tolerance = static_cast<double>(std::max({k, n, m})) * 0x1p-24 * 10 *
                             std::sqrt(static_cast<double>(std::max({k, n, m})));
    for (const Dtype out : {t, Dtype::kF32})
      compare(
          "linear_forward", {"onednn"}, tolerance,
          [&](Context& c, Memory& r) {
            LinearForward a{r.normal({m, k}, t), r.normal({n, k}, t), r.normal({n}, Dtype::kF32),
                            r.zeros({m, n}, out)};
            linear_forward(c, a);
            return std::vector{a.y};
          },
          "cublaslt");
    for (const Accumulate how : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      compare(
          "linear_backward_input", {"onednn"}, tolerance,
          [&](Context& c, Memory& r) {
            LinearBackwardInput a{r.normal({m, n}, t), r.normal({n, k}, t), r.normal({m, k}, t), how};
            linear_backward_input(c, a);
            return std::vector{a.dx};
          },
          "cublaslt");
      compare(
          "linear_backward_weight", {"onednn"}, tolerance,
          [&](Context& c, Memory& r) {
            LinearBackwardWeight a{r.normal({m, n}, t), r.normal({m, k}, t), r.normal({n, k}, Dtype::kF32),
                                   r.normal({n}, Dtype::kF32), how};
            linear_backward_weight(c, a);
            return std::vector{a.dweight, a.dbias};
          },
          "cublaslt");
    }
  }
}

TEST_P(ByType, Norm) {
  const Dtype t = GetParam();
  for (const NormForm form : {NormForm::kRms, NormForm::kLayer})
    for (const auto& [rows, d] : {std::pair<int64_t, int64_t>{1, 1}, {3, 33}, {130, 96}}) {
      const bool layer = form == NormForm::kLayer;
      for (const bool residual : {false, true})
        compare(
            "norm_forward", kRowwise, 1e-5,
            [&](Context& c, Memory& r) {
              NormForward a;
              a.form = form;
              a.x = r.normal({rows, d}, t);
              if (residual) a.delta = r.normal({rows, d}, t), a.x_out = r.zeros({rows, d}, t);
              a.gain = r.normal({d}, Dtype::kF32);
              if (layer) a.bias = r.normal({d}, Dtype::kF32), a.mean = r.zeros({rows}, Dtype::kF32);
              a.y = r.zeros({rows, d}, t);
              a.rstd = r.zeros({rows}, Dtype::kF32);
              a.eps = 1e-2f;  // keeps rstd small where a row of one element has no variance
              norm_forward(c, a);
              std::vector out{a.y, a.rstd};
              if (residual) out.push_back(a.x_out);
              if (layer) out.push_back(a.mean);
              return out;
            },
            "cuda");
      // dgain sums `rows` products of magnitude up to 5 * 5 * 10
      compare(
          "norm_backward", kRowwise, static_cast<double>(rows) * 250 * 0x1p-24 + 1e-4,
          [&](Context& c, Memory& r) {
            NormBackward a;
            a.form = form;
            a.x = r.normal({rows, d}, t);
            a.gain = r.normal({d}, Dtype::kF32);
            a.rstd = r.normal({rows}, Dtype::kF32);
            if (layer) a.mean = r.normal({rows}, Dtype::kF32), a.dbias = r.normal({d}, Dtype::kF32);
            a.dy = r.normal({rows, d}, t);
            a.dx = r.normal({rows, d}, t);
            a.dgain = r.normal({d}, Dtype::kF32);
            a.dx_accumulate = Accumulate::kAdd;
            norm_backward(c, a);
            std::vector out{a.dx, a.dgain};
            if (layer) out.push_back(a.dbias);
            return out;
          },
          "cuda");
    }
}

TEST_P(ByType, Rope) {
  const Dtype t = GetParam();
  // In place and rounded to bf16 between norm and rotation: two roundings of values up to 6
  const double tolerance = t == Dtype::kBf16 ? 6 * 2 * 0x1p-8 : 1e-5;
  for (const bool gains : {false, true})
    for (const int64_t dh : {2, 10, 64}) {
      const int64_t rows = 70, heads = 4, kv = 2;
      auto table = [&](Memory& r) {
        std::vector<double> frequency;
        for (int64_t i = 0; i < dh / 2; ++i)
          frequency.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dh)));
        const TensorView v = r.zeros({100, dh}, Dtype::kF32);
        fill_rope_table(frequency, v);
        return v;
      };
      compare("rope_forward", kRowwise, tolerance, [&](Context& c, Memory& r) {
        RopeForward a{r.normal({rows, heads + 2 * kv, dh}, t),
                      r.ints({rows}, 0, 100),
                      table(r),
                      heads,
                      kv,
                      {},
                      {},
                      {},
                      {}};
        if (gains)
          a.q_gain = r.normal({dh}, Dtype::kF32, 0.3f), a.k_gain = r.normal({dh}, Dtype::kF32, 0.3f),
          a.raw = r.zeros(a.qkv.shape, t), a.rstd = r.zeros({rows, heads + kv}, Dtype::kF32);
        rope_forward(c, a);
        return gains ? std::vector{a.qkv, a.raw, a.rstd} : std::vector{a.qkv};
      });
      compare("rope_backward", kRowwise, tolerance * 30, [&](Context& c, Memory& r) {
        RopeBackward a{r.normal({rows, heads + 2 * kv, dh}, t),
                       r.ints({rows}, 0, 100),
                       table(r),
                       heads,
                       kv,
                       {},
                       {},
                       {},
                       {},
                       {},
                       {}};
        if (gains) {
          a.q_gain = r.normal({dh}, Dtype::kF32), a.k_gain = r.normal({dh}, Dtype::kF32),
          a.raw = r.normal(a.dqkv.shape, t, 0.5f);
          a.rstd = r.normal({rows, heads + kv}, Dtype::kF32), a.dq_gain = r.normal({dh}, Dtype::kF32),
          a.dk_gain = r.normal({dh}, Dtype::kF32);
        }
        rope_backward(c, a);
        return gains ? std::vector{a.dqkv, a.dq_gain, a.dk_gain} : std::vector{a.dqkv};
      });
    }
}

TEST_P(ByType, Activation) {
  const Dtype t = GetParam();
  for (const ActivationForm form : {ActivationForm::kSwiGlu, ActivationForm::kGelu}) {
    const int64_t rows = 5, f = 51, wide = form == ActivationForm::kSwiGlu ? 2 * f : f;
    compare("activation_forward", kRowwise, 1e-5, [&](Context& c, Memory& r) {
      ActivationForward a{form, r.normal({rows, wide}, t, 3), r.zeros({rows, f}, t)};
      activation_forward(c, a);
      return std::vector{a.y};
    });
    compare("activation_backward", kRowwise, 1e-5, [&](Context& c, Memory& r) {
      ActivationBackward a{form, r.normal({rows, wide}, t, 3), r.normal({rows, f}, t), {}};
      a.dx = a.x;  // in place
      activation_backward(c, a);
      return std::vector{a.dx};
    });
  }
}

struct AttentionCase {
  int64_t batch, length, heads, kv_heads, dh, window;
  bool documents;
};

TEST_P(ByType, Attention) {
  const Dtype t = GetParam();
  // Probabilities sum to 1 and are rounded to bf16 (2^-9 each); |v| < 5: 5 * 2^-9. Score gradients likewise,
  // times |q| |k| sums.
  const double forward_tolerance = t == Dtype::kBf16 ? 5 * 0x1p-9 : 2e-5,
               backward_tolerance = t == Dtype::kBf16 ? 0.06 : 2e-4;
  const std::vector<std::string> candidates =
      t == Dtype::kBf16 ? std::vector<std::string>{"avx512bf16", "avx512", "avx2"} : kRowwise;
  for (const AttentionCase k : {AttentionCase{1, 1, 1, 1, 2, 0, false},
                                {2, 5, 2, 1, 6, 0, false},
                                {1, 80, 2, 1, 64, 0, false},  // keys end inside a panel
                                {1, 97, 2, 2, 16, 0, false},
                                {1, 270, 1, 1, 64, 0, true},
                                {1, 130, 4, 2, 64, 0, true},
                                {1, 300, 2, 1, 80, 40, true},
                                {1, 700, 1, 1, 32, 0, false},
                                {1, 600, 1, 1, 128, 0, true}}) {
    auto documents = [&](Memory& r) {
      if (!k.documents) return TensorView{};
      const TensorView v = r.zeros({k.batch, k.length}, Dtype::kI32);
      for (int64_t i = 0; i < v.count(); ++i) {
        const int64_t pos = i % k.length;
        v.as<int32_t>()[i] = static_cast<int32_t>(pos < 50 ? 0 : pos < 51 ? 50 : pos < 290 ? 51 : 290);
      }
      return v;
    };
    const float scale = 1 / std::sqrt(static_cast<float>(k.dh));
    const Shape qkv{k.batch, k.length, k.heads + 2 * k.kv_heads, k.dh}, out{k.batch, k.length, k.heads, k.dh},
        lse{k.batch, k.heads, k.length};
    compare("attention_forward", candidates, forward_tolerance, [&](Context& c, Memory& r) {
      AttentionForward a{r.normal(qkv, t), documents(r), r.zeros(out, t), r.zeros(lse, Dtype::kF32),
                         k.heads,          k.kv_heads,   k.window,        scale};
      attention_forward(c, a);
      return std::vector{a.out, a.lse};
    });
    compare("attention_backward", candidates, backward_tolerance, [&](Context& c, Memory& r) {
      AttentionForward f{r.normal(qkv, t), documents(r), r.zeros(out, t), r.zeros(lse, Dtype::kF32),
                         k.heads,          k.kv_heads,   k.window,        scale};
      Context truth;
      truth.force("attention_forward=ref");
      attention_forward(truth, f);
      AttentionBackward a{f.qkv,           f.document_start, f.out,      f.lse,    r.normal(out, t),
                          r.zeros(qkv, t), k.heads,          k.kv_heads, k.window, scale};
      attention_backward(c, a);
      return std::vector{a.dqkv};
    });
  }
}

// A row cut into three uneven stretches, every pair of them that sees anything: together they are the whole, in ref and every
// candidate. Tolerances as for the whole.
TEST_P(ByType, AttentionInParts) {
  const Dtype t = GetParam();
  const double forward_tolerance = t == Dtype::kBf16 ? 5 * 0x1p-9 : 2e-5,
               backward_tolerance = t == Dtype::kBf16 ? 0.06 : 2e-4;
  for (const std::string candidate : {"ref", "avx2", "avx512", "avx512bf16"})
    for (const AttentionCase k : {AttentionCase{2, 7, 2, 1, 6, 0, false},
                                  {1, 130, 4, 2, 64, 0, true},
                                  {1, 300, 2, 1, 80, 40, true},
                                  {1, 700, 1, 1, 32, 0, false}}) {
      Memory r;
      Context whole, c;
      whole.force("attention_forward=ref,attention_backward=ref");
      c.force(fmt::format("attention_part_forward={0},attention_part_backward={0}", candidate));
      const float scale = 1 / std::sqrt(static_cast<float>(k.dh));
      const Shape qkv{k.batch, k.length, k.heads + 2 * k.kv_heads, k.dh},
          out{k.batch, k.length, k.heads, k.dh}, lse{k.batch, k.heads, k.length},
          pairs{k.batch, k.length, 2 * k.kv_heads, k.dh};
      TensorView documents;
      if (k.documents) {
        documents = r.zeros({k.batch, k.length}, Dtype::kI32);
        for (int64_t i = 0; i < documents.count(); ++i) {
          const int64_t pos = i % k.length;
          documents.as<int32_t>()[i] = static_cast<int32_t>(pos < 50    ? 0
                                                            : pos < 51  ? 50
                                                            : pos < 290 ? 51
                                                                        : 290);
        }
      }
      const AttentionForward f{r.normal(qkv, t), documents,  r.zeros(out, t), r.zeros(lse, Dtype::kF32),
                               k.heads,          k.kv_heads, k.window,        scale};
      attention_forward(whole, f);
      const AttentionBackward b{f.qkv,           documents, f.out,      f.lse,    r.normal(out, t),
                                r.zeros(qkv, t), k.heads,   k.kv_heads, k.window, scale};
      attention_backward(whole, b);
      const TensorView kv = r.zeros(pairs, t), parts = r.zeros(out, Dtype::kF32),
                       logs = r.zeros(lse, Dtype::kF32), dq = r.zeros(out, Dtype::kF32),
                       dkv = r.zeros(pairs, Dtype::kF32);
      const int64_t row = (k.heads + 2 * k.kv_heads) * k.dh, pair = 2 * k.kv_heads * k.dh;
      for (int64_t i = 0; i < kv.count(); ++i)
        put(kv, i, get(f.qkv, i / pair * row + k.heads * k.dh + i % pair));
      for (int64_t i = 0; i < logs.count(); ++i) put(logs, i, -INFINITY);
      const int64_t cuts[] = {0, k.length / 3, k.length / 3 + 1, k.length};
      const auto each = [&](const auto& run) {
        for (int q = 0; q < 3; ++q)
          for (int s = q; s >= 0; --s)
            run(AttentionStretch{f.qkv, kv, documents, cuts[q], cuts[q + 1] - cuts[q], cuts[s],
                                 cuts[s + 1] - cuts[s], cuts[q], cuts[s], k.heads, k.kv_heads, k.window,
                                 scale});
      };
      try {
        each([&](const AttentionStretch& at) { attention_part_forward(c, {at, parts, logs}); });
        expect_near(logs, f.lse, forward_tolerance, candidate + " lse");
        for (int64_t i = 0; i < parts.count(); ++i)
          ASSERT_NEAR(get(parts, i), get(f.out, i), forward_tolerance + unit(t) * 2 * std::abs(get(parts, i)))
              << candidate << " " << i;
        each([&](const AttentionStretch& at) {
          attention_part_backward(c, {at, f.out, f.lse, b.dout, dq, dkv});
        });
      } catch (const Error& e) {
        EXPECT_TRUE(e.kind() == ErrorKind::kUsage && candidate != "ref") << e.what();
        continue;  // this processor or type has no such candidate
      }
      for (int64_t i = 0; i < dq.count(); ++i) {
        const double want = get(b.dqkv, i / (k.heads * k.dh) * row + i % (k.heads * k.dh));
        ASSERT_NEAR(get(dq, i), want, backward_tolerance + unit(t) * 2 * std::abs(want))
            << candidate << " dq " << i;
      }
      for (int64_t i = 0; i < dkv.count(); ++i) {
        const double want = get(b.dqkv, i / pair * row + k.heads * k.dh + i % pair);
        ASSERT_NEAR(get(dkv, i), want, backward_tolerance + unit(t) * 2 * std::abs(want))
            << candidate << " dkv " << i;
      }
    }
}

TEST_P(ByType, CrossEntropy) {
  const Dtype t = GetParam();
  for (const int64_t v : {1, 37, 5000})
    compare("cross_entropy", kRowwise, 4e-6, [&](Context& c, Memory& r) {
      CrossEntropy a{r.normal({6, v}, Dtype::kF32, 4), r.ints({6}, 0, v), r.zeros({6}, Dtype::kF32),
                     r.zeros({6, v}, t), 0.5f};
      a.targets.as<int32_t>()[2] = -1;
      cross_entropy(c, a);
      return std::vector{a.loss, a.dlogits};
    });
}

// Two slices, merged as workers merge them, give what the whole vocabulary gives.
TEST_P(ByType, SlicedCrossEntropy) {
  const Dtype t = GetParam();
  for (const int64_t v : {2, 37, 5000}) {
    Memory r;
    Context c;
    const int64_t rows = 6, cut = v / 3 + 1;
    CrossEntropy whole{r.normal({rows, v}, Dtype::kF32, 4), r.ints({rows}, 0, v),
                       r.zeros({rows}, Dtype::kF32), r.zeros({rows, v}, t), 0.5f};
    whole.targets.as<int32_t>()[2] = -1;
    SliceSoftmax slices[2];
    for (int s = 0; s < 2; ++s) {
      const int64_t begin = s ? cut : 0, end = s ? v : cut;
      slices[s] = {r.zeros({rows, end - begin}, Dtype::kF32), r.zeros({rows}, Dtype::kI32),
                   r.zeros({rows}, Dtype::kF32), r.zeros({rows}, Dtype::kF64), r.zeros({rows}, Dtype::kF32)};
      for (int64_t i = 0; i < rows; ++i) {
        const int32_t target = whole.targets.as<int32_t>()[i];
        slices[s].targets.as<int32_t>()[i] =
            target >= begin && target < end ? target - static_cast<int32_t>(begin) : -1;
        for (int64_t k = begin; k < end; ++k)
          put(slices[s].logits, i * (end - begin) + k - begin, get(whole.logits, i * v + k));
      }
    }
    Context truth;
    truth.force("cross_entropy=ref");
    cross_entropy(truth, whole);
    for (SliceSoftmax& s : slices) slice_softmax(c, s);
    for (int s = 0; s < 2; ++s) {
      const TensorView factor = r.zeros({rows}, Dtype::kF32), got = r.zeros(slices[s].logits.shape, t);
      for (int64_t i = 0; i < rows; ++i) {
        const float top = std::max(get(slices[0].top, i), get(slices[1].top, i));
        double sum = 0;
        for (const SliceSoftmax& each : slices)
          sum += each.sum.as<double>()[i] * std::exp(double{get(each.top, i)} - double{top});
        const bool none = whole.targets.as<int32_t>()[i] < 0;
        put(factor, i,
            none ? 0 : static_cast<float>(0.5 * std::exp(double{get(slices[s].top, i)} - double{top}) / sum));
        const double loss = none ? 0
                                 : double{top} + std::log(sum) - double{get(slices[0].target_logit, i)} -
                                       double{get(slices[1].target_logit, i)};
        EXPECT_NEAR(loss, get(whole.loss, i), 4e-6);
      }
      slice_gradient(c, {slices[s].logits, slices[s].targets, factor, got, 0.5f});
      const int64_t begin = s ? cut : 0, width = slices[s].logits.columns();
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t k = 0; k < width; ++k) {
          const float want = get(whole.dlogits, i * v + begin + k);
          EXPECT_NEAR(get(got, i * width + k), want, 4e-6 + 2 * unit(t) * std::abs(double{want}));
        }
    }
  }
}

TEST(Ops, CrossEntropyWithoutGradientAndBadTargets) {
  Memory r;
  Context c;
  CrossEntropy a{r.normal({2, 9}, Dtype::kF32), r.ints({2}, 0, 9), r.zeros({2}, Dtype::kF32), {}, 1};
  cross_entropy(c, a);
  EXPECT_GT(get(a.loss, 0), 0);
  a.targets.as<int32_t>()[1] = 9;
  EXPECT_THROW(cross_entropy(c, a), Error);
}

TEST_P(ByType, Embedding) {
  const Dtype t = GetParam();
  Memory r;
  Context c;
  EmbeddingForward f{r.ints({50}, 0, 7), r.normal({7, 19}, t), r.zeros({50, 19}, t), {}, {}};
  embedding_forward(c, f);
  EXPECT_EQ(get(f.y, 3 * 19 + 2), get(f.table, f.tokens.as<int32_t>()[3] * 19 + 2));
  compare("embedding_backward", kRowwise, 0, [&](Context& context, Memory& m) {
    EmbeddingBackward a{m.ints({50}, 0, 7), m.normal({50, 19}, t), m.normal({7, 19}, Dtype::kF32),
                        m.ints({50}, 0, 3), m.zeros({3, 19}, Dtype::kF32)};
    embedding_backward(context, a);
    return std::vector{a.dtable, a.dposition_table};
  });
  f.tokens.as<int32_t>()[4] = 7;
  EXPECT_THROW(embedding_forward(c, f), Error);
}

TEST(Ops, Updates) {
  const Shape n{70001};
  const Dtype f = Dtype::kF32;
  compare(
      "adamw", kRowwise, 1e-6,
      [&](Context& c, Memory& r) {
        AdamW a{r.normal(n, f),
                r.normal(n, f),
                r.normal(n, f),
                r.positive(n, f),
                r.zeros(n, Dtype::kBf16),
                1e-2f,
                0.9f,
                0.95f,
                1e-8f,
                0.1f,
                0.5f,
                3};
        adamw(c, a);
        return std::vector{a.param, a.m, a.v, a.copy};
      },
      "cuda");
  compare("sgd", kRowwise, 1e-6, [&](Context& c, Memory& r) {
    Sgd a{r.normal(n, f), r.normal(n, f), r.normal(n, f), r.zeros(n, Dtype::kBf16), 1e-2f, 0.9f, 0.1f, 0.5f};
    sgd(c, a);
    return std::vector{a.param, a.m, a.copy};
  });
  compare("round_copy", kRowwise, 0, [&](Context& c, Memory& r) {
    RoundCopy a{r.normal(n, f), r.zeros(n, Dtype::kBf16)};
    round_copy(c, a);
    return std::vector{a.copy};
  });
  compare("sum_squares", kRowwise, 70001 * 0x1p-22, [&](Context& c, Memory& r) {
    const TensorView out = r.zeros({1}, f);
    put(out, 0, static_cast<float>(sum_squares(c, r.normal(n, f))));
    return std::vector{out};
  });
  compare("add_into", kRowwise, 0, [&](Context& c, Memory& r) {
    AddInto a{r.normal(n, f), r.normal(n, f)};
    add_into(c, a);
    return std::vector{a.y};
  });
}

TEST(Context, ForcingSaysWhatIsWrong) {
  Context c;
  EXPECT_THROW(c.force("norm_forward"), Error);
  try {
    c.force("norm_foward=ref");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("Did you mean norm_forward?"), std::string::npos) << e.what();
  }
  c.force("sum_squares=abacus");
  Memory r;
  try {
    sum_squares(c, r.zeros({4}, Dtype::kF32));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(e.what()).find("abacus"), std::string::npos);
  }
}

// Instantiated last, hence run last: all cases above have been counted.
class Cuda : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ops, Cuda, testing::Values(0));
TEST_P(Cuda, TheSameCasesRunOnAGpu) {
  const std::string why = why_unusable(DeviceKind::kCuda);
  if (why.empty()) {
    EXPECT_EQ(cuda_cases_run, cuda_cases);
    return;
  }
  Context context;
  Memory r;
  AdamW a{r.zeros({4}, Dtype::kF32),
          r.zeros({4}, Dtype::kF32),
          r.zeros({4}, Dtype::kF32),
          r.zeros({4}, Dtype::kF32),
          {}};
  a.param.device = {DeviceKind::kCuda, 0};  // refused before anything is touched
  try {
    adamw(context, a);
    FAIL() << "ran without a device";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kDevice);
    EXPECT_NE(std::string(e.what()).find(why), std::string::npos) << e.what();
  }
  Sgd none{a.param, a.grad, {}, {}};
  EXPECT_THROW(sgd(context, none), Error);  // an op without a CUDA candidate
  GTEST_SKIP() << cuda_cases << " op cases did not run on a GPU: " << why;
}

}  // namespace
}  // namespace stoker::ops
