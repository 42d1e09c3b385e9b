#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/element.h"
#include "ops/ref/ref.h"

namespace stoker::ops::ref {
namespace {

// Where things are in [B,T,H+2K,Dh] and [B,T,H,Dh].
struct Layout {
  int64_t batch, length, dh, heads, kv_heads;
  int64_t q(int64_t b, int64_t t, int64_t h) const {
    return ((b * length + t) * (heads + 2 * kv_heads) + h) * dh;
  }
  int64_t k(int64_t b, int64_t t, int64_t h) const { return q(b, t, heads + h / (heads / kv_heads)); }
  int64_t v(int64_t b, int64_t t, int64_t h) const { return k(b, t, h) + kv_heads * dh; }
  int64_t out(int64_t b, int64_t t, int64_t h) const { return ((b * length + t) * heads + h) * dh; }
};

template <typename Args>
Layout layout_of(const Args& a) {
  return {a.qkv.shape[0], a.qkv.shape[1], a.qkv.shape[3], a.heads, a.kv_heads};
}

template <typename Args>
int64_t first_key(const Args& a, const Layout& l, int64_t b, int64_t t) {
  const int64_t document = a.document_start ? a.document_start.template as<int32_t>()[b * l.length + t] : 0;
  return a.window ? std::max(document, t - a.window + 1) : document;
}

double dot(const TensorView& x, int64_t i, const TensorView& y, int64_t j, int64_t n) {
  double sum = 0;
  for (int64_t d = 0; d < n; ++d) sum += double{get(x, i + d)} * get(y, j + d);
  return sum;
}

}  // namespace

void attention_forward(Context&, const AttentionForward& a) {
  const Layout l = layout_of(a);
  std::vector<double> score(static_cast<size_t>(l.length));
  for (int64_t b = 0; b < l.batch; ++b)
    for (int64_t h = 0; h < l.heads; ++h)
      for (int64_t t = 0; t < l.length; ++t) {
        const int64_t first = first_key(a, l, b, t);
        double top = -INFINITY, sum = 0;
        for (int64_t s = first; s <= t; ++s)
          top = std::max(top, score[static_cast<size_t>(s)] =
                                  a.scale * dot(a.qkv, l.q(b, t, h), a.qkv, l.k(b, s, h), l.dh));
        for (int64_t s = first; s <= t; ++s) sum += std::exp(score[static_cast<size_t>(s)] - top);
        put(a.lse, (b * l.heads + h) * l.length + t, static_cast<float>(top + std::log(sum)));
        for (int64_t d = 0; d < l.dh; ++d) {
          double o = 0;
          for (int64_t s = first; s <= t; ++s)
            o += std::exp(score[static_cast<size_t>(s)] - top) / sum * get(a.qkv, l.v(b, s, h) + d);
          put(a.out, l.out(b, t, h) + d, static_cast<float>(o));
        }
      }
}

void attention_backward(Context&, const AttentionBackward& a) {
  const Layout l = layout_of(a);
  std::vector<double> dqkv(static_cast<size_t>(a.qkv.count()), 0.0);
  for (int64_t b = 0; b < l.batch; ++b)
    for (int64_t h = 0; h < l.heads; ++h)
      for (int64_t t = 0; t < l.length; ++t) {
        const int64_t q = l.q(b, t, h), o = l.out(b, t, h);
        const double lse = get(a.lse, (b * l.heads + h) * l.length + t),
                     delta = dot(a.out, o, a.dout, o, l.dh);
        for (int64_t s = first_key(a, l, b, t); s <= t; ++s) {
          const int64_t k = l.k(b, s, h), v = l.v(b, s, h);
          const double p = std::exp(a.scale * dot(a.qkv, q, a.qkv, k, l.dh) - lse);
          const double ds = a.scale * p * (dot(a.dout, o, a.qkv, v, l.dh) - delta);
          for (int64_t d = 0; d < l.dh; ++d) {
            dqkv[static_cast<size_t>(v + d)] += p * get(a.dout, o + d);
            dqkv[static_cast<size_t>(q + d)] += ds * get(a.qkv, k + d);
            dqkv[static_cast<size_t>(k + d)] += ds * get(a.qkv, q + d);
          }
        }
      }
  for (int64_t i = 0; i < a.dqkv.count(); ++i)
    put(a.dqkv, i, static_cast<float>(dqkv[static_cast<size_t>(i)]));
}

namespace {

// Where things are in the tensors of a stretch; query and key count within it.
struct StretchLayout {
  const AttentionStretch& s;
  int64_t held = s.qkv.shape[1], dh = s.qkv.shape[3];
  int64_t q(int64_t b, int64_t t, int64_t h) const {
    return ((b * held + s.query + t) * (s.heads + 2 * s.kv_heads) + h) * dh;
  }
  int64_t k(int64_t b, int64_t j, int64_t h) const {
    return ((b * s.kv.shape[1] + s.key + j) * 2 * s.kv_heads + h / (s.heads / s.kv_heads)) * dh;
  }
  int64_t v(int64_t b, int64_t j, int64_t h) const { return k(b, j, h) + s.kv_heads * dh; }
  int64_t out(int64_t b, int64_t t, int64_t h) const { return ((b * held + s.query + t) * s.heads + h) * dh; }
  int64_t lse(int64_t b, int64_t t, int64_t h) const { return (b * s.heads + h) * held + s.query + t; }
  bool sees(int64_t b, int64_t t, int64_t j) const {
    const int64_t at = s.query_position + t, key = s.key_position + j;
    const int64_t document = s.document_start ? s.document_start.as<int32_t>()[b * held + s.query + t] : 0;
    return key <= at && key >= document && (!s.window || key > at - s.window);
  }
};

}  // namespace

void attention_part_forward(Context&, const AttentionPartForward& a) {
  const AttentionStretch& s = a.at;
  const StretchLayout l{s};
  for (int64_t b = 0; b < s.qkv.shape[0]; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t t = 0; t < s.queries; ++t) {
        const auto score = [&](int64_t j) {
          return s.scale * dot(s.qkv, l.q(b, t, h), s.kv, l.k(b, j, h), l.dh);
        };
        const double before = static_cast<double>(get(a.lse, l.lse(b, t, h)));
        double top = before;
        for (int64_t j = 0; j < s.keys; ++j)
          if (l.sees(b, t, j)) top = std::max(top, score(j));
        if (top == -INFINITY) continue;
        double sum = std::exp(before - top);
        for (int64_t j = 0; j < s.keys; ++j)
          if (l.sees(b, t, j)) sum += std::exp(score(j) - top);
        put(a.lse, l.lse(b, t, h), static_cast<float>(top + std::log(sum)));
        for (int64_t d = 0; d < l.dh; ++d) {
          double o = static_cast<double>(get(a.out, l.out(b, t, h) + d)) * std::exp(before - top) / sum;
          for (int64_t j = 0; j < s.keys; ++j)
            if (l.sees(b, t, j))
              o += std::exp(score(j) - top) / sum * static_cast<double>(get(s.kv, l.v(b, j, h) + d));
          put(a.out, l.out(b, t, h) + d, static_cast<float>(o));
        }
      }
}

void attention_part_backward(Context&, const AttentionPartBackward& a) {
  const AttentionStretch& s = a.at;
  const StretchLayout l{s};
  std::vector<double> dq(static_cast<size_t>(a.dq.count()), 0.0),
      dkv(static_cast<size_t>(a.dkv.count()), 0.0);
  for (int64_t b = 0; b < s.qkv.shape[0]; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t t = 0; t < s.queries; ++t) {
        const int64_t q = l.q(b, t, h), o = l.out(b, t, h);
        const double lse = get(a.lse, l.lse(b, t, h)), delta = dot(a.out, o, a.dout, o, l.dh);
        for (int64_t j = 0; j < s.keys; ++j) {
          if (!l.sees(b, t, j)) continue;
          const int64_t k = l.k(b, j, h), v = l.v(b, j, h);
          const double p = std::exp(s.scale * dot(s.qkv, q, s.kv, k, l.dh) - lse);
          const double ds = s.scale * p * (dot(a.dout, o, s.kv, v, l.dh) - delta);
          for (int64_t d = 0; d < l.dh; ++d) {
            dkv[static_cast<size_t>(v + d)] += p * static_cast<double>(get(a.dout, o + d));
            dkv[static_cast<size_t>(k + d)] += ds * static_cast<double>(get(s.qkv, q + d));
            dq[static_cast<size_t>(o + d)] += ds * static_cast<double>(get(s.kv, k + d));
          }
        }
      }
  const auto add = [](const TensorView& to, const std::vector<double>& from) {
    for (int64_t i = 0; i < to.count(); ++i)
      put(to, i, static_cast<float>(static_cast<double>(get(to, i)) + from[static_cast<size_t>(i)]));
  };
  add(a.dq, dq);
  add(a.dkv, dkv);
}

}  // namespace stoker::ops::ref
