// ops/cpu/pointwise_body.h
// Rotary positions, activations and cross-entropy rows on Lanes. Included by vector_<isa>.cpp after
// norm_body.h.
#pragma once

namespace {

template <typename T>
inline void rotate_head(T* x, const float* table, int64_t half, float direction) {
  const Lanes sign = Lanes::set(direction);
  pieces(half, [&](int64_t i, int n) {
    const Lanes c = load_piece(table + i, n), s = load_piece(table + half + i, n) * sign;
    const Lanes a = load_piece(x + i, n), b = load_piece(x + half + i, n);
    store_piece(a * c - b * s, x + i, n);
    store_piece(b * c + a * s, x + half + i, n);
  });
}

template <typename T>
void rope_forward_rows(const ops::RopeForward& a, int64_t begin, int64_t end) {
  const int64_t dh = a.qkv.columns(), all = a.heads + 2 * a.kv_heads, rotated = a.heads + a.kv_heads;
  for (int64_t r = begin; r < end; ++r) {
    T* row = data<T>(a.qkv) + r * all * dh;
    const float* table = data<float>(a.table) + static_cast<int64_t>(data<int32_t>(a.positions)[r]) * dh;
    if (a.raw)
      __builtin_memcpy(data<T>(a.raw) + r * all * dh, row, static_cast<size_t>(all * dh) * sizeof(T));
    for (int64_t h = 0; h < rotated; ++h) {
      T* x = row + h * dh;
      if (a.raw) {
        Lanes squares = Lanes::set(0);
        pieces(dh, [&](int64_t i, int n) {
          const Lanes v = load_piece(x + i, n);
          squares = Lanes::fma(v, v, squares);
        });
        const float rstd = 1.0f / __builtin_sqrtf(squares.sum() / static_cast<float>(dh) + a.eps);
        data<float>(a.rstd)[r * rotated + h] = rstd;
        const float* gain = data<float>(h < a.heads ? a.q_gain : a.k_gain);
        pieces(dh, [&](int64_t i, int n) {
          store_piece(load_piece(x + i, n) * Lanes::set(rstd) * load_piece(gain + i, n), x + i, n);
        });
      }
      rotate_head(x, table, dh / 2, 1);
    }
  }
}

template <typename T>
void rope_backward_rows(const ops::RopeBackward& a, int64_t begin, int64_t end, float* dq_gain,
                        float* dk_gain) {
  const int64_t dh = a.dqkv.columns(), all = a.heads + 2 * a.kv_heads, rotated = a.heads + a.kv_heads;
  if (a.raw)
    for (int64_t i = 0; i < dh; ++i) dq_gain[i] = dk_gain[i] = 0;
  for (int64_t r = begin; r < end; ++r) {
    T* row = data<T>(a.dqkv) + r * all * dh;
    const float* table = data<float>(a.table) + static_cast<int64_t>(data<int32_t>(a.positions)[r]) * dh;
    for (int64_t h = 0; h < rotated; ++h) {
      T* dx = row + h * dh;
      rotate_head(dx, table, dh / 2, -1);
      if (!a.raw) continue;
      const T* x = data<T>(a.raw) + (r * all + h) * dh;
      const float* gain = data<float>(h < a.heads ? a.q_gain : a.k_gain);
      float* dgain = h < a.heads ? dq_gain : dk_gain;
      const Lanes rstd = Lanes::set(data<float>(a.rstd)[r * rotated + h]);
      Lanes sum_gx = Lanes::set(0);
      pieces(dh, [&](int64_t i, int n) {
        const Lanes dy = load_piece(dx + i, n), xhat = load_piece(x + i, n) * rstd;
        sum_gx = Lanes::fma(dy * load_piece(gain + i, n), xhat, sum_gx);
        store_piece(Lanes::fma(dy, xhat, load_piece(dgain + i, n)), dgain + i, n);
      });
      const Lanes mean_gx = Lanes::set(sum_gx.sum() / static_cast<float>(dh));
      pieces(dh, [&](int64_t i, int n) {
        const Lanes xhat = load_piece(x + i, n) * rstd;
        store_piece(rstd * (load_piece(dx + i, n) * load_piece(gain + i, n) - xhat * mean_gx), dx + i, n);
      });
    }
  }
}

constexpr float kGeluRoot = 0.7978845608028654f;  // sqrt(2 / pi)
constexpr float kGeluCube = 0.044715f;

template <typename T>
void activation_forward_rows(const ops::ActivationForward& a, int64_t begin, int64_t end) {
  const int64_t f = a.y.columns();
  const bool swiglu = a.form == ops::ActivationForm::kSwiGlu;
  for (int64_t r = begin; r < end; ++r) {
    const T* x = data<T>(a.x) + r * f * (swiglu ? 2 : 1);
    T* y = data<T>(a.y) + r * f;
    if (swiglu) {
      pieces(f, [&](int64_t i, int n) {
        const Lanes gate = load_piece(x + i, n);
        store_piece(gate * sigmoid_lanes(gate) * load_piece(x + f + i, n), y + i, n);
      });
    } else {
      pieces(f, [&](int64_t i, int n) {
        const Lanes v = load_piece(x + i, n), inner = Lanes::fma(Lanes::set(kGeluCube) * v * v, v, v);
        store_piece(v * sigmoid_lanes(Lanes::set(2 * kGeluRoot) * inner), y + i,
                    n);  // 0.5 (1 + tanh u) = sigmoid(2u)
      });
    }
  }
}

template <typename T>
void activation_backward_rows(const ops::ActivationBackward& a, int64_t begin, int64_t end) {
  const int64_t f = a.dy.columns();
  const bool swiglu = a.form == ops::ActivationForm::kSwiGlu;
  const Lanes one = Lanes::set(1);
  for (int64_t r = begin; r < end; ++r) {
    const T *x = data<T>(a.x) + r * f * (swiglu ? 2 : 1), *dy = data<T>(a.dy) + r * f;
    T* dx = data<T>(a.dx) + r * f * (swiglu ? 2 : 1);
    if (swiglu) {
      pieces(f, [&](int64_t i, int n) {
        const Lanes gate = load_piece(x + i, n), up = load_piece(x + f + i, n), g = load_piece(dy + i, n),
                    s = sigmoid_lanes(gate);
        store_piece(g * up * s * Lanes::fma(gate, one - s, one), dx + i, n);
        store_piece(g * gate * s, dx + f + i, n);
      });
    } else {
      pieces(f, [&](int64_t i, int n) {
        const Lanes v = load_piece(x + i, n), square = v * v;
        const Lanes s =
            sigmoid_lanes(Lanes::set(2 * kGeluRoot) * Lanes::fma(Lanes::set(kGeluCube) * square, v, v));
        const Lanes slope = Lanes::set(2 * kGeluRoot) * Lanes::fma(Lanes::set(3 * kGeluCube), square, one);
        store_piece(load_piece(dy + i, n) * Lanes::fma(v * s * (one - s), slope, s), dx + i, n);
      });
    }
  }
}

template <typename G>
void cross_entropy_rows(const ops::CrossEntropy& a, int64_t begin, int64_t end) {
  const int64_t v = a.logits.columns();
  for (int64_t r = begin; r < end; ++r) {
    float* x = data<float>(a.logits) + r * v;
    const int32_t target = data<int32_t>(a.targets)[r];
    G* g = a.dlogits ? data<G>(a.dlogits) + r * v : nullptr;
    if (target < 0) {
      data<float>(a.loss)[r] = 0;
      if (g) __builtin_memset(g, 0, static_cast<size_t>(v) * sizeof(G));
      continue;
    }
    Lanes top = Lanes::set(-3.4e38f);
    pieces(v, [&](int64_t i, int n) { top = Lanes::max(top, load_piece(x + i, n).keep(0, n, top)); });
    const float m = top.top(), target_logit = x[target];
    const Lanes shift = Lanes::set(m);
    double sum = 0;
    for (int64_t block = 0; block < v;
         block += 4096) {  // f32 sums of at most 4096 / W terms a lane, then f64
      Lanes partial = Lanes::set(0);
      const int64_t stop = block + 4096 < v ? block + 4096 : v;
      pieces(stop - block, [&](int64_t i, int n) {
        const Lanes e = exp_lanes(load_piece(x + block + i, n) - shift).keep(0, n, Lanes::set(0));
        if (g) store_piece(e, x + block + i, n);  // the second pass reuses it
        partial = partial + e;
      });
      sum += static_cast<double>(partial.sum());
    }
    data<float>(a.loss)[r] =
        static_cast<float>(static_cast<double>(m) + __builtin_log(sum) - static_cast<double>(target_logit));
    if (!g) continue;
    const float p_target = static_cast<float>(static_cast<double>(x[target]) / sum);
    const Lanes factor = Lanes::set(static_cast<float>(static_cast<double>(a.scale) / sum));
    pieces(v, [&](int64_t i, int n) { store_piece(load_piece(x + i, n) * factor, g + i, n); });
    Lanes::set((p_target - 1) * a.scale).store(g + target, 1);
  }
}

inline void slice_softmax_rows(const ops::SliceSoftmax& a, int64_t begin, int64_t end) {
  const int64_t v = a.logits.columns();
  for (int64_t r = begin; r < end; ++r) {
    float* x = data<float>(a.logits) + r * v;
    const int32_t target = data<int32_t>(a.targets)[r];
    data<float>(a.target_logit)[r] = target < 0 ? 0 : x[target];
    Lanes top = Lanes::set(-3.4e38f);
    pieces(v, [&](int64_t i, int n) { top = Lanes::max(top, load_piece(x + i, n).keep(0, n, top)); });
    const float m = top.top();
    const Lanes shift = Lanes::set(m);
    double sum = 0;
    for (int64_t block = 0; block < v; block += 4096) {  // as cross_entropy_rows
      Lanes partial = Lanes::set(0);
      const int64_t stop = block + 4096 < v ? block + 4096 : v;
      pieces(stop - block, [&](int64_t i, int n) {
        const Lanes e = exp_lanes(load_piece(x + block + i, n) - shift).keep(0, n, Lanes::set(0));
        store_piece(e, x + block + i, n);
        partial = partial + e;
      });
      sum += static_cast<double>(partial.sum());
    }
    data<float>(a.top)[r] = m;
    data<double>(a.sum)[r] = sum;
  }
}

template <typename G>
void slice_gradient_rows(const ops::SliceGradient& a, int64_t begin, int64_t end) {
  const int64_t v = a.logits.columns();
  for (int64_t r = begin; r < end; ++r) {
    const float* x = data<float>(a.logits) + r * v;
    G* g = data<G>(a.dlogits) + r * v;
    const int32_t target = data<int32_t>(a.targets)[r];
    const float factor = data<float>(a.factor)[r];
    const float at_target = target < 0 ? 0 : x[target] * factor - a.scale;
    const Lanes by = Lanes::set(factor);
    pieces(v, [&](int64_t i, int n) { store_piece(load_piece(x + i, n) * by, g + i, n); });
    if (target >= 0) Lanes::set(at_target).store(g + target, 1);
  }
}

}  // namespace
