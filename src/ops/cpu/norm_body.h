// ops/cpu/norm_body.h
// RMSNorm and LayerNorm rows on Lanes. Included by vector_<isa>.cpp only.
#pragma once

namespace {

using stoker::Bf16;
using stoker::TensorView;
namespace ops = stoker::ops;

constexpr int W = Lanes::kWidth;

template <typename T>
T* data(const TensorView& t) {
  return static_cast<T*>(t.data);
}

// Calls body(i, n) for n-element pieces of [0, d): n is W but for the last.
template <typename Body>
inline void pieces(int64_t d, Body body) {
  int64_t i = 0;
  for (; i + W <= d; i += W) body(i, W);
  if (i < d) body(i, static_cast<int>(d - i));
}
template <typename T>
inline Lanes load_piece(const T* p, int n) {
  return n == W ? Lanes::load(p) : Lanes::load(p, n);
}
template <typename T>
inline void store_piece(Lanes x, T* p, int n) {
  if (n == W) x.store(p);
  else x.store(p, n);
}

template <typename T>
void norm_forward_rows(const ops::NormForward& a, int64_t begin, int64_t end) {
  const int64_t d = a.x.columns();
  const bool layer = a.form == ops::NormForm::kLayer;
  const float inverse = 1.0f / static_cast<float>(d);
  for (int64_t r = begin; r < end; ++r) {
    const T* x = data<T>(a.x) + r * d;
    Lanes sum = Lanes::set(0), squares = Lanes::set(0);
    if (a.delta) {
      const T* delta = data<T>(a.delta) + r * d;
      T* out = data<T>(a.x_out) + r * d;
      pieces(d, [&](int64_t i, int n) {
        store_piece(load_piece(x + i, n) + load_piece(delta + i, n), out + i, n);
      });
      x = out;
    }
    float mean = 0;
    if (layer) {
      pieces(d, [&](int64_t i, int n) { sum = sum + load_piece(x + i, n); });
      mean = sum.sum() * inverse;
      data<float>(a.mean)[r] = mean;
    }
    const Lanes m = Lanes::set(mean);
    pieces(d, [&](int64_t i, int n) {
      const Lanes c = (load_piece(x + i, n) - m).keep(0, n, Lanes::set(0));
      squares = Lanes::fma(c, c, squares);
    });
    const float rstd = 1.0f / __builtin_sqrtf(squares.sum() * inverse + a.eps);
    data<float>(a.rstd)[r] = rstd;
    const float *gain = data<float>(a.gain), *bias = a.bias ? data<float>(a.bias) : nullptr;
    T* y = data<T>(a.y) + r * d;
    const Lanes s = Lanes::set(rstd);
    pieces(d, [&](int64_t i, int n) {
      Lanes v = (load_piece(x + i, n) - m) * s * load_piece(gain + i, n);
      if (bias) v = v + load_piece(bias + i, n);
      store_piece(v, y + i, n);
    });
  }
}

template <typename T>
void norm_backward_rows(const ops::NormBackward& a, int64_t begin, int64_t end, float* dgain, float* dbias) {
  const int64_t d = a.x.columns();
  const bool layer = a.form == ops::NormForm::kLayer, add = a.dx_accumulate == ops::Accumulate::kAdd;
  const float inverse = 1.0f / static_cast<float>(d);
  const float* gain = data<float>(a.gain);
  for (int64_t i = 0; i < d; ++i) dgain[i] = 0;
  if (dbias)
    for (int64_t i = 0; i < d; ++i) dbias[i] = 0;
  for (int64_t r = begin; r < end; ++r) {
    const T *x = data<T>(a.x) + r * d, *dy = data<T>(a.dy) + r * d;
    T* dx = data<T>(a.dx) + r * d;
    const Lanes rstd = Lanes::set(data<float>(a.rstd)[r]),
                mean = Lanes::set(layer ? data<float>(a.mean)[r] : 0);
    Lanes sum_g = Lanes::set(0), sum_gx = Lanes::set(0);
    pieces(d, [&](int64_t i, int n) {
      const Lanes dyi = load_piece(dy + i, n), xhat = (load_piece(x + i, n) - mean) * rstd,
                  g = dyi * load_piece(gain + i, n);
      sum_g = sum_g + g;
      sum_gx = Lanes::fma(g, xhat, sum_gx);
      store_piece(Lanes::fma(dyi, xhat, load_piece(dgain + i, n)), dgain + i, n);
      if (dbias) store_piece(load_piece(dbias + i, n) + dyi, dbias + i, n);
    });
    const Lanes mean_g = Lanes::set(layer ? sum_g.sum() * inverse : 0),
                mean_gx = Lanes::set(sum_gx.sum() * inverse);
    pieces(d, [&](int64_t i, int n) {
      const Lanes xhat = (load_piece(x + i, n) - mean) * rstd;
      Lanes v = rstd * (load_piece(dy + i, n) * load_piece(gain + i, n) - mean_g - xhat * mean_gx);
      if (add) v = v + load_piece(dx + i, n);
      store_piece(v, dx + i, n);
    });
  }
}

}  // namespace
