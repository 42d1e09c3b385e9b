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

}  // namespace stoker::ops::ref
