// The law of shared layers: workers that share the width of a model (tensor parallel, with and without split rows) or the tokens of
// a row (context parallel) make the loss and the gradients of a single worker, within a bound that is computed here, and the same
// bits every time.
//
// The bound. A dot product of K terms computed in any order is the exact one of terms that are each off by a relative error, of
// about lambda sqrt(K) u (Higham & Mary 2019, "A new approach to probabilistic rounding error analysis"; u = 2^-24, lambda 4: all
// but one in a thousand), which is what relative errors of that size in the weights would do. What errors in the weights do to each gradient is
// measured: the single worker's gradients with every weight off by a random relative 2^-10. Both sides are off by as much, hence
//     |shared - single|  <=  2 * lambda * sqrt(K) * u * (response to 2^-10) / 2^-10        K: the longest sum of the model
// In bf16 products are the same f32 sums, rounded once to 8 bits; a sum that differs in its last bits may fall on the other side, a
// relative 2^-8 of that activation: u becomes 2^-8 and the sum counts once.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "base/random.h"
#include "base/threads.h"
#include "comm/ring_transport.h"
#include "exact_loss.h"
#include "model/transformer_chunk.h"
#include "ops/element.h"
#include "parallel/ring_attention.h"
#include "parallel/tensor_peers.h"

namespace stoker {
namespace {

ModelSpec llama_like() {
  ModelSpec m;
  m.layers = 2, m.hidden = 48, m.heads = 8, m.kv_heads = 4, m.head_dim = 8, m.ffn = 80, m.vocab = 101;
  m.max_positions = 64;
  m.tied_embeddings = true;
  return m;
}
ModelSpec qwen3_like() {
  ModelSpec m = llama_like();
  m.family = Family::kQwen3, m.qk_norm = true, m.tied_embeddings = false;
  return m;
}
ModelSpec gpt2_like() {
  ModelSpec m = llama_like();
  m.family = Family::kGpt2, m.norm = NormKind::kLayerNorm, m.activation = ActivationKind::kGelu;
  m.position = PositionKind::kLearned, m.linear_bias = true, m.kv_heads = m.heads = 4, m.head_dim = 12;
  return m;
}

struct Data {
  int64_t rows, length;
  std::vector<int32_t> tokens, targets, positions, starts;
  MicroBatch batch() const { return {rows, length, tokens, targets, positions, starts}; }
};

// Documents of uneven length, some targets without loss.
Data make_data(const ModelSpec& m, int64_t rows, int64_t length) {
  Data d{rows, length, {}, {}, {}, {}};
  const auto random = [&](uint64_t stream, int64_t i, int64_t below) {
    return static_cast<int32_t>(random_u64({11, stream}, static_cast<uint64_t>(i)) %
                                static_cast<uint64_t>(below));
  };
  for (int64_t i = 0; i < rows * length; ++i) {
    const auto at = static_cast<int32_t>(i % length);
    const bool begins = at == 0 || random(3, i, 9) == 0;
    d.starts.push_back(begins ? at : d.starts.back());
    d.positions.push_back(at - d.starts.back());
    d.tokens.push_back(random(1, i, m.vocab));
    d.targets.push_back(random(2, i, 7) == 0 ? -1 : random(4, i, m.vocab));
  }
  return d;
}

struct Result {
  double loss = 0;
  std::map<std::string, std::vector<float>> gradients;  // of the whole tensors
};

constexpr float kScale = 1.0f / 64;

std::vector<float> floats(const TensorView& v) { return {v.as<float>(), v.as<float>() + v.count()}; }

// Weights away from their symmetric start: gains and biases too.
void fill(nn::ParameterStore& store, double off, uint64_t draw) {
  store.init(5, 0.2f);
  uint64_t stream = 0;
  for (const nn::Parameter& p : store.parameters()) {
    float* w = p.weight.value.as<float>();
    ++stream;
    for (int64_t i = 0; i < p.row.count(); ++i) {
      const auto at = static_cast<uint64_t>(i);
      if (p.row.role == ParameterRole::kBias || p.row.role == ParameterRole::kNormGain)
        w[i] += 0.1f * random_normal({6, stream}, at);
      if (off > 0) w[i] *= 1 + static_cast<float>(random_u64({20 + draw, stream}, at) & 1 ? off : -off);
    }
  }
}

std::string embedding(const ModelSpec& m) {
  return m.family == Family::kGpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight";
}

Result single(const ModelSpec& m, const Data& d, Precision precision, double off = 0, uint64_t draw = 0) {
  nn::ParameterStore store(m, precision, true);
  fill(store, off, draw);
  ops::Context context;
  store.refresh(context);
  TransformerChunk chunk(store, whole_model(m), {d.rows, d.length}, context);
  store.zero_grads();
  chunk.forward(d.batch(), 0);
  Result r;
  r.loss = chunk.backward(d.batch(), 0, kScale);
  if (chunk.collects_lookups()) chunk.lookups().flush(store.find(embedding(m)).grad);
  for (const nn::Parameter& p : store.parameters()) r.gradients[p.row.name] = floats(p.weight.grad);
  return r;
}

// Rank by rank, each in a thread of its own.
void together(int workers, const std::function<void(comm::Communicator&)>& body) {
  comm::LocalGroup group(workers);
  std::vector<std::thread> threads;
  std::vector<std::string> errors(static_cast<size_t>(workers));
  for (int r = 0; r < workers; ++r)
    threads.emplace_back([&, r] {
      set_compute_threads(1);
      try {
        const auto c = comm::make_communicator(group.transport(r), 1, 60);
        body(*c);
      } catch (const std::exception& e) {
        errors[static_cast<size_t>(r)] = e.what();
      }
    });
  for (auto& t : threads) t.join();
  for (const std::string& e : errors) EXPECT_EQ(e, "");
}

struct Mode {
  int tensor = 1;
  bool split_rows = false;
  Recompute recompute = Recompute::kNone;
  bool split_backward = false;
  int context = 1;
};

// The tokens of one worker of a ring.
Data ring_part(const Data& d, int workers, int rank) {
  Data part{d.rows, d.length / workers, {}, {}, {}, {}};
  const auto take = [&](const std::vector<int32_t>& from, std::vector<int32_t>& to) {
    parallel::take_ring_share(from, d.length, workers, rank, to);
  };
  take(d.tokens, part.tokens), take(d.targets, part.targets), take(d.positions, part.positions);
  take(d.starts, part.starts);
  return part;
}

// Workers of one row of the mesh are tensor neighbours; the ring goes through its columns.
Result shared(const ModelSpec& m, const Data& d, Precision precision, const Mode& mode) {
  Result r;
  nn::ParameterStore whole(m, precision, false);
  fill(whole, 0, 0);
  std::mutex mutex;
  std::map<std::string, std::vector<std::vector<float>>> by_ring_rank;
  std::vector<double> losses(static_cast<size_t>(mode.context), NAN);
  together(mode.tensor * mode.context, [&](comm::Communicator& world) {
    const int t = world.rank() % mode.tensor, c = world.rank() / mode.tensor;
    std::vector<int> row, column;
    for (int i = 0; i < mode.tensor; ++i) row.push_back(c * mode.tensor + i);
    for (int i = 0; i < mode.context; ++i) column.push_back(i * mode.tensor + t);
    const auto width = world.subgroup(row), ring = world.subgroup(column);
    const TensorPlace place{mode.tensor, t};
    parallel::CommTensorPeers peers(*width, mode.split_rows);
    const ModelSpec share = tensor_share(m, place);
    nn::ParameterStore store(share, precision, true);
    for (const nn::Parameter& p : store.parameters())
      for (const nn::Parameter& w : whole.parameters())
        if (w.row.name == p.row.name)
          take_share(share_cut(m, place, w.row), w.weight.value.as<float>(), p.weight.value.as<float>());
    ops::Context context;
    store.refresh(context);
    const Data mine = ring_part(d, mode.context, c);
    ChunkOptions options{mine.rows, mine.length, mode.recompute, true, 1, mode.split_backward};
    options.tensor = mode.tensor, options.split_rows = mode.split_rows, options.vocab = m.vocab;
    options.row_length = d.length;
    parallel::RingAttention attention(*ring, {d.rows, d.length, share.heads, share.kv_heads, share.head_dim,
                                              precision == Precision::kBf16 ? Dtype::kBf16 : Dtype::kF32});
    TransformerChunk chunk(store, whole_model(share), options, context, nullptr,
                           {mode.tensor > 1 ? &peers : nullptr, mode.context > 1 ? &attention : nullptr});
    store.zero_grads();
    chunk.forward(mine.batch(), 0);
    const double loss = chunk.backward(mine.batch(), 0, kScale);
    if (mode.split_backward) chunk.backward_weights(0);
    if (chunk.collects_lookups()) chunk.lookups().flush(store.find(embedding(m)).grad);
    for (const nn::Parameter& p : store.parameters())
      if (mode.tensor > 1 && nn::partial_gradient(p.row, mode.split_rows))
        peers.sum(std::span(p.weight.grad.as<float>(), static_cast<size_t>(p.row.count())));
    const std::lock_guard lock(mutex);
    double& said = losses[static_cast<size_t>(c)];
    if (std::isnan(said)) said = loss;
    EXPECT_EQ(said, loss) << "all that share a width know the loss";
    for (const nn::Parameter& p : store.parameters())
      for (const nn::Parameter& w : whole.parameters()) {
        if (w.row.name != p.row.name) continue;
        auto& ranks = by_ring_rank[p.row.name];
        ranks.resize(static_cast<size_t>(mode.context));
        auto& gradient = ranks[static_cast<size_t>(c)];
        const ShareCut cut = share_cut(m, place, w.row);
        if (cut.replicated && !gradient.empty()) {
          EXPECT_EQ(gradient, floats(p.weight.grad)) << p.row.name;
        }
        gradient.resize(static_cast<size_t>(w.row.count()), NAN);
        put_share(cut, p.weight.grad.as<float>(), gradient.data());
      }
  });
  for (const double l : losses) r.loss += l;
  for (const auto& [name, ranks] : by_ring_rank) {
    std::vector<float>& sum = r.gradients[name] = ranks[0];
    for (size_t c = 1; c < ranks.size(); ++c) comm::add_into(sum.data(), ranks[c].data(), sum.size());
  }
  return r;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  }
  return worst;
}

// What relative errors of 2^-10 in the weights do to the loss and to each gradient.
struct Response {
  double loss = 0;
  std::map<std::string, double> gradients;
};
Response respond(const ModelSpec& m, const Data& d) {
  Response out;
  const Result truth = single(m, d, Precision::kFp32);
  for (uint64_t draw = 0; draw < 3; ++draw) {
    const Result off = single(m, d, Precision::kFp32, 0x1p-10, draw);
    out.loss = std::max(out.loss, std::abs(off.loss - truth.loss));
    for (const auto& [name, g] : truth.gradients)
      out.gradients[name] = std::max(out.gradients[name], distance(g, off.gradients.at(name)));
  }
  return out;
}

double longest_sum(const ModelSpec& m, const Data& d) {
  return static_cast<double>(std::max({m.hidden, m.ffn, m.vocab, m.heads * m.head_dim, d.rows * d.length}));
}

void expect_within(const Result& got, const Result& want, const Response& response, double error,
                   const std::string& what) {
  EXPECT_LE(std::abs(got.loss - want.loss), response.loss / 0x1p-10 * error) << what;
  double worst = 0;
  for (const auto& [name, g] : want.gradients) {
    const double bound = response.gradients.at(name) / 0x1p-10 * error,
                 far = distance(g, got.gradients.at(name));
    EXPECT_LE(far, bound) << what << " " << name;
    worst = std::max(worst, far / bound);
  }
  if (error < 0x1p-10) {  // bf16 may round every difference away
    EXPECT_GT(worst, 0) << what << ": nothing differs at all: was anything shared?";
  }
  if (getenv("STOKER_SHOW")) fmt::print("{}: {:.3f} of the bound\n", what, worst);
}

class SharedLayers : public testing::TestWithParam<ModelSpec (*)()> {
 protected:
  void SetUp() override { set_compute_threads(1); }
};
INSTANTIATE_TEST_SUITE_P(Families, SharedLayers, testing::Values(llama_like, qwen3_like, gpt2_like),
                         [](const auto& i) {
                           return std::string(i.index == 0 ? "llama" : i.index == 1 ? "qwen3" : "gpt2");
                         });

double error_of(Precision p, double terms) {
  return p == Precision::kFp32 ? 2 * 4 * std::sqrt(terms) * 0x1p-24 : 2 * 0x1p-8;
}

TEST_P(SharedLayers, WidthGivesTheSingleWorkersGradients) {
  const ModelSpec m = GetParam()();
  const Data d = make_data(m, 2, 24);
  const Response response = respond(m, d);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const Result truth = single(m, d, precision);
    for (const int workers : {2, 4})
      for (const bool split_rows : {false, true}) {
        const Result got = shared(m, d, precision, {workers, split_rows});
        expect_within(
            got, truth, response, error_of(precision, longest_sum(m, d)),
            fmt::format("{} tensor {}{}", to_string(precision), workers, split_rows ? " rows" : ""));
      }
  }
}

TEST_P(SharedLayers, WidthRepeatsToTheBit) {
  const ModelSpec m = GetParam()();
  const Data d = make_data(m, 2, 24);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16})
    for (const bool split_rows : {false, true}) {
      const Result first = shared(m, d, precision, {2, split_rows});
      for (const Mode& mode :
           {Mode{2, split_rows}, Mode{2, split_rows, Recompute::kSelective},
            Mode{2, split_rows, Recompute::kFull}, Mode{2, split_rows, Recompute::kNone, true}}) {
        const Result again = shared(m, d, precision, mode);
        EXPECT_EQ(first.loss, again.loss);
        EXPECT_EQ(first.gradients, again.gradients) << to_string(mode.recompute) << mode.split_backward;
      }
    }
}

TEST_P(SharedLayers, TokensGiveTheSingleWorkersGradients) {
  const ModelSpec m = GetParam()();
  const Data d = make_data(m, 2, 24);
  const Response response = respond(m, d);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const Result truth = single(m, d, precision);
    for (const int workers : {2, 3, 4}) {
      Mode mode;
      mode.context = workers;
      const Result got = shared(m, d, precision, mode);
      expect_within(got, truth, response, error_of(precision, longest_sum(m, d)),
                    fmt::format("{} context {}", to_string(precision), workers));
    }
  }
}

TEST_P(SharedLayers, BothTogether) {
  const ModelSpec m = GetParam()();
  const Data d = make_data(m, 2, 24);
  const Response response = respond(m, d);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const Result truth = single(m, d, precision);
    Mode mode{2, true};
    mode.context = 2;
    const Result got = shared(m, d, precision, mode);
    expect_within(got, truth, response, error_of(precision, longest_sum(m, d)),
                  fmt::format("{} tensor 2 rows context 2", to_string(precision)));
    for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
      mode.recompute = recompute;
      const Result again = shared(m, d, precision, mode);
      EXPECT_EQ(got.loss, again.loss);
      EXPECT_EQ(got.gradients, again.gradients) << to_string(recompute);
    }
  }
}

// off: added to one weight.
ExactLoss exact_loss(const ModelSpec& m, const Data& d, float off = 0) {
  nn::ParameterStore store(m, Precision::kFp32, false);
  fill(store, 0, 0);
  store.find("model.layers.1.mlp.down_proj.weight").value.as<float>()[5] += off;
  const auto weights = [&](const std::string& name) {
    const TensorView w = store.find(name).value;
    return std::span<const float>(w.as<float>(), static_cast<size_t>(w.count()));
  };
  return {m, weights, {d.rows, d.length, d.tokens, d.targets, d.positions, d.starts}};
}

// The loss against gamma(K) times the absolute sums of this very run, weighted by how much the loss depends on each of them
// (exact_loss.h). The bounds hold for one evaluation in any order of its sums, so for the single worker and the shared ones alike; these
// are as far apart as twice that.
TEST(SharedLayersBound, LossIsWithinGammaTimesAbsoluteSums) {
  set_compute_threads(1);
  ModelSpec untied = llama_like();
  untied.tied_embeddings = false;
  for (const ModelSpec& m : {llama_like(), untied}) {
    const Data d = make_data(m, 2, 24);
    const ExactLoss exact = exact_loss(m, d);
    const double one = single(m, d, Precision::kFp32).loss;
    const auto expect_near = [&](double loss, double other, double times, const std::string& what) {
      EXPECT_LE(std::abs(loss - other), times * exact.bound()) << what;
      EXPECT_LE(std::abs(loss - other), times * exact.likely_bound()) << what;
    };
    expect_near(one, exact.loss(), 1, "single worker");
    for (const int tensor : {1, 2, 4})
      for (const int context : {1, 2, 4})
        for (const bool split_rows : {false, true}) {
          if (tensor * context == 1 || (split_rows && tensor == 1)) continue;
          Mode mode{tensor, split_rows};
          mode.context = context;
          const double loss = shared(m, d, Precision::kFp32, mode).loss;
          const std::string what =
              fmt::format("tensor {}{} context {}", tensor, split_rows ? " rows" : "", context);
          expect_near(loss, exact.loss(), 1, what);
          expect_near(loss, one, 2, what);
          if (getenv("STOKER_SHOW"))
            fmt::print(
                "{}: loss {:.7f}, off by {:.2g}, from the single worker's {:.2g}; bounds {:.2g}, {:.2g}\n",
                what, loss, std::abs(loss - exact.loss()), std::abs(loss - one), exact.bound(),
                exact.likely_bound());
        }
    EXPECT_GT(std::abs(exact_loss(m, d, 0.01f).loss() - one), exact.likely_bound()) << "one weight off shows";
  }
}

// A window that crosses the borders of stretches.
TEST(SharedTokens, SlidingWindow) {
  set_compute_threads(1);
  ModelSpec m = llama_like();
  m.sliding_window = 7;
  Data d = make_data(m, 1, 32);
  std::fill(d.starts.begin(), d.starts.end(), 0);
  const Response response = respond(m, d);
  Mode mode;
  mode.context = 4;
  expect_within(shared(m, d, Precision::kFp32, mode), single(m, d, Precision::kFp32), response,
                error_of(Precision::kFp32, longest_sum(m, d)), "window");
}

// What every worker of a ring has to do is the same, to a token.
TEST(SharedTokens, AreBalanced) {
  for (const int64_t n : {1, 2, 3, 8}) {
    std::vector<int64_t> pairs;
    std::vector<int> times(static_cast<size_t>(n * 16), 0);
    for (int64_t c = 0; c < n; ++c) {
      int64_t& sum = pairs.emplace_back(0);
      for (const parallel::RingStretch& s : parallel::ring_share(n * 16, n, c))
        for (int64_t t = s.begin; t < s.end; ++t) sum += t + 1, ++times[static_cast<size_t>(t)];
    }
    for (const int64_t p : pairs) EXPECT_EQ(p, pairs[0]);
    for (const int t : times) EXPECT_EQ(t, 1);
  }
  EXPECT_THROW(parallel::ring_share(30, 4, 0), Error);
}

TEST(SharedLayersErrors, NameTheTwoFields) {
  const ModelSpec m = llama_like();
  const auto message = [&](int64_t workers) -> std::string {
    try {
      tensor_share(m, {workers, 0});
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kUsage);
      return e.what();
    }
    return "";
  };
  EXPECT_NE(message(3).find("model.heads (8) is not a multiple of layout.tensor (3)"), std::string::npos);
  EXPECT_NE(message(8).find("model.kv_heads (4) is not a multiple of layout.tensor (8)"), std::string::npos);
}

// Every element of the whole is in exactly one share, replicated rows in all, and comes back to its place.
TEST(TensorShare, CutsCoverEveryTensorOnce) {
  for (const auto make : {llama_like, qwen3_like, gpt2_like})
    for (const int64_t workers : {1, 2, 4}) {
      const ModelSpec m = make();
      size_t at = 0;
      for (const ParameterRow& row : parameter_table(m)) {
        std::vector<float> whole(static_cast<size_t>(row.count())), back(whole.size(), -1);
        std::vector<int> times(whole.size(), 0);
        for (size_t i = 0; i < whole.size(); ++i) whole[i] = static_cast<float>(i);
        for (int64_t t = 0; t < workers; ++t) {
          const TensorPlace place{workers, t};
          const ShareCut cut = share_cut(m, place, row);
          const auto table = parameter_table(tensor_share(m, place));
          std::vector<float> share(static_cast<size_t>(table[at].count()), -1);
          EXPECT_EQ(table[at].name, row.name);
          take_share(cut, whole.data(), share.data());
          put_share(cut, share.data(), back.data());
          for (const float x : share) {
            ASSERT_GE(x, 0) << row.name;
            ++times[static_cast<size_t>(x)];
          }
          EXPECT_TRUE(std::all_of(times.begin(), times.end(), [&](int n) {
            return cut.replicated ? n == t + 1 : n <= 1;
          })) << row.name;
        }
        EXPECT_EQ(whole, back) << row.name;
        ++at;
      }
    }
}

}  // namespace
}  // namespace stoker
