// ops/cpu/update_body.h
// Optimizer updates and sums on Lanes. Included by vector_<isa>.cpp after norm_body.h.
#pragma once

namespace {

void adamw_range(const ops::AdamW& a, int64_t begin, int64_t end) {
  float *p = data<float>(a.param), *m = data<float>(a.m), *v = data<float>(a.v);
  const float* g = data<float>(a.grad);
  Bf16* copy = a.copy ? data<Bf16>(a.copy) : nullptr;
  const double t = static_cast<double>(a.step);
  const Lanes correct1 =
      Lanes::set(static_cast<float>(1 / (1 - __builtin_pow(static_cast<double>(a.beta1), t))));
  const Lanes correct2 =
      Lanes::set(static_cast<float>(1 / (1 - __builtin_pow(static_cast<double>(a.beta2), t))));
  const Lanes b1 = Lanes::set(a.beta1), c1 = Lanes::set(1 - a.beta1), b2 = Lanes::set(a.beta2),
              c2 = Lanes::set(1 - a.beta2);
  const Lanes decay = Lanes::set(1 - a.lr * a.weight_decay), lr = Lanes::set(a.lr), eps = Lanes::set(a.eps),
              gs = Lanes::set(a.grad_scale);
  pieces(end - begin, [&](int64_t k, int n) {
    const int64_t i = begin + k;
    const Lanes gi = load_piece(g + i, n) * gs;
    const Lanes mi = Lanes::fma(b1, load_piece(m + i, n), c1 * gi);
    const Lanes vi = Lanes::fma(b2, load_piece(v + i, n), c2 * gi * gi);
    const Lanes pi = load_piece(p + i, n) * decay - lr * (mi * correct1) / (Lanes::sqrt(vi * correct2) + eps);
    store_piece(mi, m + i, n);
    store_piece(vi, v + i, n);
    store_piece(pi, p + i, n);
    if (copy) store_piece(pi, copy + i, n);
  });
}

void sgd_range(const ops::Sgd& a, int64_t begin, int64_t end) {
  float *p = data<float>(a.param), *m = a.m ? data<float>(a.m) : nullptr;
  Bf16* copy = a.copy ? data<Bf16>(a.copy) : nullptr;
  const Lanes decay = Lanes::set(1 - a.lr * a.weight_decay), lr = Lanes::set(a.lr),
              gs = Lanes::set(a.grad_scale);
  pieces(end - begin, [&](int64_t k, int n) {
    const int64_t i = begin + k;
    Lanes step = load_piece(data<float>(a.grad) + i, n) * gs;
    if (m) {
      step = Lanes::fma(Lanes::set(a.momentum), load_piece(m + i, n), step);
      store_piece(step, m + i, n);
    }
    const Lanes pi = load_piece(p + i, n) * decay - lr * step;
    store_piece(pi, p + i, n);
    if (copy) store_piece(pi, copy + i, n);
  });
}

void round_copy_range(const ops::RoundCopy& a, int64_t begin, int64_t end) {
  pieces(end - begin, [&](int64_t k, int n) {
    store_piece(load_piece(data<float>(a.source) + begin + k, n), data<Bf16>(a.copy) + begin + k, n);
  });
}

double sum_squares_block(const float* x, int64_t count) {
  double total = 0;
  for (int64_t block = 0; block < count; block += 1024) {
    Lanes sum = Lanes::set(0);
    pieces(count - block < 1024 ? count - block : 1024, [&](int64_t i, int n) {
      const Lanes v = load_piece(x + block + i, n);
      sum = Lanes::fma(v, v, sum);
    });
    total += static_cast<double>(sum.sum());
  }
  return total;
}

void add_range(float* y, const float* x, int64_t count) {
  pieces(count,
         [&](int64_t i, int n) { store_piece(load_piece(y + i, n) + load_piece(x + i, n), y + i, n); });
}

template <typename T>
void add_row_of(float* y, const T* x, int64_t d) {
  pieces(d, [&](int64_t i, int n) { store_piece(load_piece(y + i, n) + load_piece(x + i, n), y + i, n); });
}
void add_row(float* y, const TensorView& x, int64_t row) {
  const int64_t d = x.columns();
  if (x.dtype == stoker::Dtype::kF32) add_row_of(y, data<float>(x) + row * d, d);
  else add_row_of(y, data<Bf16>(x) + row * d, d);
}
void column_sums(const TensorView& x, int64_t begin, int64_t end, float* sums) {
  for (int64_t i = 0; i < x.columns(); ++i) sums[i] = 0;
  for (int64_t r = begin; r < end; ++r) add_row(sums, x, r);
}

}  // namespace
