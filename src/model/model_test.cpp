// Whole models against what transformers computed in float64 from the same files (tests/golden/make_models.py).
// Tolerances: an f32 forward pass of these models makes about 2 layers x 100-term sums of terms below 1; its error against float64
// stays below 1e-5 of the logits' scale, which transformers' own float32 logits confirm: ours may be at most 4 times as far
// from float64 as they are, or 1e-5. bf16 has 2^16 times coarser rounding: 8 bits of every activation over ~10 roundings a layer.
#include <gtest/gtest.h>

#include <cmath>

#include "model/decoder.h"
#include "model/hf_weights.h"
#include "model/transformer.h"
#include "spec/hf_config.h"

namespace stoker {
namespace {

std::string slurp(const std::string& path) {
  const auto file = io::real_file_system().open_read(path);
  return std::string(file->text());
}

struct Golden {
  std::string dir;
  HfConfig config;
  io::SafetensorsSet weights;
  io::SafetensorsFile expected;
  std::vector<int32_t> tokens, targets, positions;
  int64_t rows, length;
  MicroBatch batch() const { return {rows, length, tokens, targets, positions, {}}; }

  explicit Golden(const std::string& name)
      : dir(std::string(STOKER_SOURCE_DIR) + "/tests/golden/models/" + name),
        config(parse_hf_config(slurp(dir + "/config.json"), name)),
        weights(io::real_file_system(), only_weights()),
        expected(io::real_file_system(), dir + "/golden.safetensors") {
    const auto& ids = expected.at("input_ids");
    rows = ids.shape[0], length = ids.shape[1];
    const auto* p = reinterpret_cast<const int32_t*>(expected.bytes(ids).data());
    tokens.assign(p, p + rows * length);
    for (int64_t i = 0; i < rows * length; ++i) {
      positions.push_back(static_cast<int32_t>(i % length));
      targets.push_back((i + 1) % length ? tokens[static_cast<size_t>(i + 1)] : -1);
    }
  }
  std::string only_weights() const {
    const std::string one = dir + "/model.safetensors";
    return io::real_file_system().exists(one) ? one : dir;
  }
  std::vector<double> doubles(const std::string& name) const {
    const auto& t = expected.at(name);
    const auto bytes = expected.bytes(t);
    std::vector<double> out;
    for (size_t i = 0; i < bytes.size() / (t.dtype == "F64" ? 8 : 4); ++i)
      out.push_back(t.dtype == "F64" ? reinterpret_cast<const double*>(bytes.data())[i]
                                     : static_cast<double>(reinterpret_cast<const float*>(bytes.data())[i]));
    return out;
  }
};

class GoldenModel : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Families, GoldenModel,
                         testing::Values("gpt2", "llama", "llama3", "llama_linear_rope", "mistral", "qwen2",
                                         "qwen3"),
                         [](const auto& i) { return std::string(i.param); });

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}
double scale(const std::vector<double>& a) { return distance(a, std::vector<double>(a.size(), 0.0)); }

std::vector<double> our_logits(Golden& g, Precision precision) {
  nn::ParameterStore store(g.config.model, precision, false);
  load_hf_weights(g.weights, store);
  ops::Context context;
  store.refresh(context);
  Transformer model(store, {g.rows, g.length, Recompute::kNone, false}, context);
  std::vector<float> out(static_cast<size_t>(g.rows * g.length * g.config.model.vocab));
  model.logits(g.batch(), view_of(out.data(), {g.rows * g.length, g.config.model.vocab}));
  return {out.begin(), out.end()};
}

TEST_P(GoldenModel, Logits) {
  Golden g(GetParam());
  const auto exact = g.doubles("logits_f64"), theirs = g.doubles("logits_f32");
  EXPECT_LE(distance(our_logits(g, Precision::kFp32), exact),
            std::max(1e-5 * scale(exact), 4 * distance(theirs, exact)));
  // 2-3 layers x ~10 roundings to 8 bits, each at most 2^-9 of the residual stream, adding up like a random walk
  EXPECT_LE(distance(our_logits(g, Precision::kBf16), exact), scale(exact) * 0x1p-9 * std::sqrt(30.0) * 3);
}

struct Gradients {
  double loss;
  std::vector<std::vector<double>> values;  // in the file's layout
};

Gradients our_gradients(Golden& g, Precision precision, Recompute recompute) {
  nn::ParameterStore store(g.config.model, precision, true);
  load_hf_weights(g.weights, store);
  ops::Context context;
  store.refresh(context);
  Transformer model(store, {g.rows, g.length, recompute, true}, context);
  store.zero_grads();
  const double count = static_cast<double>(g.rows * (g.length - 1));
  Gradients out{model.forward_backward(g.batch(), static_cast<float>(1 / count)) / count, {}};
  model.finish_gradients();
  for (nn::Parameter p : store.parameters()) {
    p.weight.value = p.weight.grad;
    const auto bytes = hf_tensor_bytes(p, Dtype::kF32);
    const auto* f = reinterpret_cast<const float*>(bytes.data());
    out.values.emplace_back(f, f + p.row.count());
  }
  return out;
}

TEST_P(GoldenModel, LossAndGradients) {
  Golden g(GetParam());
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const double u = precision == Precision::kFp32 ? 2e-5 : 0.06;
    const Gradients got = our_gradients(g, precision, Recompute::kNone);
    EXPECT_NEAR(got.loss, g.doubles("loss_f64")[0], u * 0.5);
    const auto rows = parameter_table(g.config.model);
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto want = g.doubles("grad." + rows[i].name);
      EXPECT_LE(distance(got.values[i], want), u * std::max(scale(want), 1e-3))
          << rows[i].name << " precision " << to_string(precision);
    }
  }
}

TEST_P(GoldenModel, RecomputeGivesTheSameBits) {
  Golden g(GetParam());
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const Gradients none = our_gradients(g, precision, Recompute::kNone);
    for (const Recompute mode : {Recompute::kSelective, Recompute::kFull}) {
      const Gradients other = our_gradients(g, precision, mode);
      EXPECT_EQ(none.loss, other.loss);
      EXPECT_EQ(none.values, other.values);
    }
  }
}

// The cache changes what is stored, not what is computed: the f32 logits of the two paths differ by summation order alone.
TEST_P(GoldenModel, DecoderAgreesWithTransformer) {
  Golden g(GetParam());
  const auto whole = our_logits(g, Precision::kFp32);
  nn::ParameterStore store(g.config.model, Precision::kFp32, false);
  load_hf_weights(g.weights, store);
  ops::Context context;
  Decoder decoder(store, g.length, context);
  const double tolerance = 1e-5 * scale(whole);
  for (int64_t r = 0; r < g.rows; ++r, decoder.reset())
    for (int64_t t = 0; t < g.length; ++t) {
      const auto logits = decoder.next(g.tokens[static_cast<size_t>(r * g.length + t)]);
      for (size_t v = 0; v < logits.size(); ++v)
        ASSERT_NEAR(logits[v], whole[static_cast<size_t>(r * g.length + t) * logits.size() + v], tolerance)
            << "row " << r << " position " << t;
    }
  for (int64_t t = 0; t < g.length; ++t) decoder.next(1);
  EXPECT_THROW(decoder.next(1), Error);
}

TEST(HfWeights, ErrorsNameTheTensor) {
  Golden g("llama");
  ModelSpec wider = g.config.model;
  wider.ffn += 8;
  nn::ParameterStore store(wider, Precision::kFp32, false);
  try {
    load_hf_weights(g.weights, store);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kData);
    EXPECT_NE(std::string(e.what()).find("mlp.gate_proj.weight has shape [88, 32]"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace stoker
