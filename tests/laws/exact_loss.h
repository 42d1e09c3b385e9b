// The loss of a Llama-like model in f64, and how far an f32 evaluation may be from it: a bound that is computed, not chosen.
// Every value that an f32 evaluation rounds is a node with its exact value v and a bound e on what computing this node alone in f32, from
// exact inputs, gets wrong, whatever the order of its sums: for a sum of K products gamma(K) * sum |a_i b_i| (Higham 2002, Accuracy and
// Stability of Numerical Algorithms, section 3.1), the absolute sums taken from the run at hand. To first order in u the loss is off by
//     |loss_f32 - loss|  <=  sum over all nodes |dloss/dv| e,
// and dloss/dv is what the backward pass of this model finds: bound(). Roundings do not conspire: where they are independent and of mean
// zero, K of them make sqrt(K) u, and the nodes' errors add as squares; more than lambda times that root comes with a probability below
// 2 exp(-lambda^2 / 2) (Higham & Mary 2019): likely_bound(), lambda = 5. (docs/same-bits.md)
// Not here: bf16, norms of heads, windows, learned positions
#pragma once
#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "spec/model_spec.h"

namespace stoker {

class ExactLoss {
 public:
  using Weights = std::function<std::span<const float>(const std::string& name)>;
  struct Rows {  // as MicroBatch has them
    int64_t rows, length;
    std::span<const int32_t> tokens, targets, positions, document_start;
  };

  ExactLoss(const ModelSpec& spec, Weights weights, Rows rows)
      : m_(spec), weights_(std::move(weights)), rows_(rows) {
    run();
  }
  double loss() const { return loss_; }
  double bound() const { return bound_; }
  double likely_bound() const { return 5 * std::sqrt(squares_); }

 private:
  static constexpr double kU = 0x1p-24;
  static double gamma(double n) { return n * kU / (1 - n * kU); }

  struct Node {
    size_t width = 0;
    // For each value: how many roundings it went through, and the sum of the magnitudes that they hit.
    std::vector<double> value, roundings, absolute, grad;
    std::function<void()> back;
    double& at(size_t r, size_t i) { return value[r * width + i]; }
    double& grad_at(size_t r, size_t i) { return grad[r * width + i]; }
  };
  size_t tokens() const { return rows_.tokens.size(); }
  Node& make(size_t width) {
    Node& n = nodes_.emplace_back();
    n.width = width;
    for (auto* v : {&n.value, &n.roundings, &n.absolute, &n.grad}) v->assign(tokens() * width, 0.0);
    return n;
  }

  Node& embed(std::span<const float> table) {
    Node& y = make(static_cast<size_t>(m_.hidden));  // copies: no error
    for (size_t r = 0; r < tokens(); ++r)
      for (size_t i = 0; i < y.width; ++i)
        y.at(r, i) = static_cast<double>(table[static_cast<size_t>(rows_.tokens[r]) * y.width + i]);
    return y;
  }

  Node& linear(Node& x, std::span<const float> w) {
    Node& y = make(w.size() / x.width);
    for (size_t r = 0; r < tokens(); ++r)
      for (size_t o = 0; o < y.width; ++o) {
        double sum = 0, absolute = 0;
        for (size_t i = 0; i < x.width; ++i) {
          const double p = x.at(r, i) * static_cast<double>(w[o * x.width + i]);
          sum += p, absolute += std::abs(p);
        }
        y.at(r, o) = sum, y.absolute[r * y.width + o] = absolute;
        // Parts may be summed apart and then together, and the total rounded once more.
        y.roundings[r * y.width + o] = static_cast<double>(x.width) + 2;
      }
    y.back = [this, &x, &y, w] {
      for (size_t r = 0; r < tokens(); ++r)
        for (size_t o = 0; o < y.width; ++o)
          for (size_t i = 0; i < x.width; ++i)
            x.grad_at(r, i) += y.grad_at(r, o) * static_cast<double>(w[o * x.width + i]);
    };
    return y;
  }

  Node& add(Node& a, Node& b) {
    Node& y = make(a.width);
    for (size_t i = 0; i < y.value.size(); ++i) {
      y.value[i] = a.value[i] + b.value[i];
      y.roundings[i] = 1, y.absolute[i] = std::abs(y.value[i]);
    }
    y.back = [&a, &b, &y] {
      for (size_t i = 0; i < y.value.size(); ++i) a.grad[i] += y.grad[i], b.grad[i] += y.grad[i];
    };
    return y;
  }

  Node& norm(Node& x, std::span<const float> gain) {
    Node& y = make(x.width);
    const auto width = static_cast<double>(x.width);
    std::vector<double> rstd(tokens());
    for (size_t r = 0; r < tokens(); ++r) {
      double squares = 0;
      for (size_t i = 0; i < x.width; ++i) squares += x.at(r, i) * x.at(r, i);
      rstd[r] = 1 / std::sqrt(squares / width + m_.norm_eps);
      for (size_t i = 0; i < x.width; ++i) {
        y.at(r, i) = x.at(r, i) * rstd[r] * static_cast<double>(gain[i]);
        y.roundings[r * y.width + i] = width + 8;  // of a sum whose terms have one sign
        y.absolute[r * y.width + i] = std::abs(y.at(r, i));
      }
    }
    y.back = [this, &x, &y, gain, rstd, width] {
      for (size_t r = 0; r < tokens(); ++r) {
        double mean = 0;
        for (size_t i = 0; i < x.width; ++i)
          mean += y.grad_at(r, i) * static_cast<double>(gain[i]) * x.at(r, i) * rstd[r] / width;
        for (size_t i = 0; i < x.width; ++i)
          x.grad_at(r, i) +=
              rstd[r] * (y.grad_at(r, i) * static_cast<double>(gain[i]) - x.at(r, i) * rstd[r] * mean);
      }
    };
    return y;
  }

  // Each head's first half with its second half, by the token's position.
  Node& rotate(Node& x) {
    Node& y = make(x.width);
    const auto dh = static_cast<size_t>(m_.head_dim), half = dh / 2;
    const auto each = [this, dh, half, width = x.width](const auto& visit) {
      for (size_t r = 0; r < tokens(); ++r)
        for (size_t first = r * width; first < (r + 1) * width; first += dh)
          for (size_t i = 0; i < half; ++i) {
            const double angle = rows_.positions[r] * std::pow(m_.rope_theta, -2.0 * static_cast<double>(i) /
                                                                                  static_cast<double>(dh));
            visit(first + i, first + i + half, std::cos(angle), std::sin(angle));
          }
    };
    each([&](size_t a, size_t b, double c, double s) {
      y.value[a] = x.value[a] * c - x.value[b] * s, y.value[b] = x.value[b] * c + x.value[a] * s;
      // Cosine and sine are rounded, the products and their sum too.
      y.roundings[a] = y.roundings[b] = 3;
      y.absolute[a] = y.absolute[b] = std::abs(x.value[a]) + std::abs(x.value[b]);
    });
    y.back = [&x, &y, each] {
      each([&](size_t a, size_t b, double c, double s) {
        x.grad[a] += y.grad[a] * c + y.grad[b] * s, x.grad[b] += y.grad[b] * c - y.grad[a] * s;
      });
    };
    return y;
  }

  Node& attend(Node& q, Node& k, Node& v) {
    Node& y = make(q.width);
    struct Row {  // of one query and head
      size_t query, q_at, y_at, key, k_at;
      std::vector<double> p, score_absolute;  // by key
    };
    const auto dh = static_cast<size_t>(m_.head_dim), heads = static_cast<size_t>(m_.heads),
               group = heads / static_cast<size_t>(m_.kv_heads), length = static_cast<size_t>(rows_.length);
    const double scale = 1 / std::sqrt(static_cast<double>(dh));
    std::vector<Row> all;
    for (size_t t = 0; t < tokens(); ++t)
      for (size_t h = 0; h < heads; ++h) {
        const size_t row = t / length * length, first = row + static_cast<size_t>(rows_.document_start[t]);
        Row a{t, t * q.width + h * dh, t * y.width + h * dh, first, h / group * dh, {}, {}};
        double top = -std::numeric_limits<double>::infinity(), low = -top, sum = 0;
        for (size_t s = first; s <= t; ++s) {
          double score = 0, absolute = 0;
          for (size_t i = 0; i < dh; ++i) {
            const double x = q.value[a.q_at + i] * k.value[s * k.width + a.k_at + i];
            score += x, absolute += std::abs(x);
          }
          a.p.push_back(score * scale);
          a.score_absolute.push_back(absolute * scale);
          top = std::max(top, score * scale), low = std::min(low, score * scale);
        }
        for (double& p : a.p) sum += p = std::exp(p - top);
        for (double& p : a.p) p /= sum;
        // Exponentials off by a few u, and by the rounding of their arguments; a sum below and one above; and the
        // keys may come in up to kParts parts, whose sums are scaled anew by exponentials of differences of their logarithms.
        constexpr double kParts = 8, kExponential = 8;
        const double arguments = std::abs(top) + (top - low) + std::abs(std::log(sum)),
                     n = 2 * static_cast<double>(a.p.size()) + (2 + kParts) * (kExponential + arguments);
        for (size_t s = 0; s < a.p.size(); ++s)
          for (size_t i = 0; i < dh; ++i) {
            const double x = a.p[s] * v.value[(first + s) * v.width + a.k_at + i];
            y.value[a.y_at + i] += x;
            y.roundings[a.y_at + i] = n, y.absolute[a.y_at + i] += std::abs(x);
          }
        all.push_back(std::move(a));
      }
    y.back = [this, &q, &k, &v, &y, all = std::move(all), dh, scale] {
      for (const Row& a : all) {
        double mean = 0;
        std::vector<double> dp(a.p.size(), 0.0);
        for (size_t s = 0; s < a.p.size(); ++s) {
          for (size_t i = 0; i < dh; ++i) {
            const size_t at = (a.key + s) * v.width + a.k_at + i;
            dp[s] += y.grad[a.y_at + i] * v.value[at];
            v.grad[at] += y.grad[a.y_at + i] * a.p[s];
          }
          mean += a.p[s] * dp[s];
        }
        for (size_t s = 0; s < a.p.size(); ++s) {
          const double dscore = a.p[s] * (dp[s] - mean);
          count(dscore, static_cast<double>(dh) + 2, a.score_absolute[s]);
          for (size_t i = 0; i < dh; ++i) {
            const size_t at = (a.key + s) * k.width + a.k_at + i;
            q.grad[a.q_at + i] += dscore * scale * k.value[at];
            k.grad[at] += dscore * scale * q.value[a.q_at + i];
          }
        }
      }
    };
    return y;
  }

  Node& swiglu(Node& gate, Node& up) {
    Node& y = make(gate.width);
    for (size_t i = 0; i < y.value.size(); ++i) {
      const double s = 1 / (1 + std::exp(-gate.value[i]));
      y.value[i] = gate.value[i] * s * up.value[i];
      y.roundings[i] = 16 + std::abs(gate.value[i]), y.absolute[i] = std::abs(y.value[i]);
    }
    y.back = [&gate, &up, &y] {
      for (size_t i = 0; i < y.value.size(); ++i) {
        const double g = gate.value[i], s = 1 / (1 + std::exp(-g));
        gate.grad[i] += y.grad[i] * up.value[i] * s * (1 + g * (1 - s));
        up.grad[i] += y.grad[i] * g * s;
      }
    };
    return y;
  }

  // The sum over the tokens that carry one, in f64 as the program adds them; each token's is an f32.
  void cross_entropy(Node& logits) {
    for (size_t r = 0; r < tokens(); ++r) {
      if (rows_.targets[r] < 0) continue;
      double top = -std::numeric_limits<double>::infinity(), low = -top, sum = 0;
      for (size_t i = 0; i < logits.width; ++i)
        top = std::max(top, logits.at(r, i)), low = std::min(low, logits.at(r, i));
      for (size_t i = 0; i < logits.width; ++i) sum += std::exp(logits.at(r, i) - top);
      const double target = logits.at(r, static_cast<size_t>(rows_.targets[r])),
                   one = top + std::log(sum) - target;
      loss_ += one;
      count(1, static_cast<double>(logits.width) + 8 + (top - low), 1);  // of the sum, so of its logarithm
      count(1, 4, std::abs(top) + std::log(sum) + std::abs(target));
      for (size_t i = 0; i < logits.width; ++i) logits.grad_at(r, i) = std::exp(logits.at(r, i) - top) / sum;
      logits.grad_at(r, static_cast<size_t>(rows_.targets[r])) -= 1;
    }
  }

  void count(double grad, double roundings, double absolute) {
    bound_ += std::abs(grad) * gamma(roundings) * absolute;
    squares_ += roundings * std::pow(grad * kU * absolute, 2);
  }

  void run() {
    const std::string table = "model.embed_tokens.weight";
    Node* x = &embed(weights_(table));
    for (int64_t l = 0; l < m_.layers; ++l) {
      const auto w = [&](const char* name) {
        return weights_("model.layers." + std::to_string(l) + "." + name + ".weight");
      };
      Node& y1 = norm(*x, w("input_layernorm"));
      Node& q = rotate(linear(y1, w("self_attn.q_proj")));
      Node& k = rotate(linear(y1, w("self_attn.k_proj")));
      Node& v = linear(y1, w("self_attn.v_proj"));
      x = &add(*x, linear(attend(q, k, v), w("self_attn.o_proj")));
      Node& y2 = norm(*x, w("post_attention_layernorm"));
      x = &add(*x, linear(swiglu(linear(y2, w("mlp.gate_proj")), linear(y2, w("mlp.up_proj"))),
                          w("mlp.down_proj")));
    }
    cross_entropy(linear(norm(*x, weights_("model.norm.weight")),
                         weights_(m_.tied_embeddings ? table : "lm_head.weight")));
    for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node)
      if (node->back) node->back();
    for (const Node& node : nodes_)
      for (size_t i = 0; i < node.value.size(); ++i) count(node.grad[i], node.roundings[i], node.absolute[i]);
  }

  ModelSpec m_;
  Weights weights_;
  Rows rows_;
  std::deque<Node> nodes_;
  double loss_ = 0, bound_ = 0, squares_ = 0;
};

}  // namespace stoker
