// ops/cpu/attention_body.h
// Attention for one (batch row, key head) on Lanes and a Dot policy. Included by attention_<isa>.cpp after
// the lanes and the policy.
//
// Dot multiplies packed operands:  Element (what is packed), kPack (elements along k in one 32-bit unit: 2
// for bf16, 1 for f32), kTileLanes (lanes of one tile), tile<MR, NR>(...), store_row, store_pair.
//   A operand   row-major elements [rows][k], k contiguous
//   B operand   panels of kTile columns; a panel is [k / kPack][kTile] units, each unit kPack consecutive k
// Forward keeps a block of 96 queries against 512 keys; backward works on transposed scores [96 keys][256
// queries], so that lse and delta are vectors along lanes and a key's visible queries are one range.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/threads.h"
#include "ops/attention.h"

namespace {

namespace ops = stoker::ops;
using stoker::Bf16;
using Element = Dot::Element;

constexpr int W = Lanes::kWidth;
constexpr int kTile = W * Dot::kTileLanes;
constexpr int kRows = 6;  // rows of a tile
constexpr int kQueryBlock = 96, kKeyBlock = 512;
constexpr int kBackKeys = 96, kBackQueries = 256;
static_assert(kKeyBlock % kTile == 0 && kBackQueries % kTile == 0 && kQueryBlock % kRows == 0 &&
              kBackKeys % kRows == 0 && kRows % 2 == 0);

constexpr int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
constexpr int64_t down(int64_t n, int64_t to) { return n / to * to; }

// C[rows, columns] (+)= A[rows, k] * B[k, columns]. rows <= kRows a call of tile; columns is a multiple of W;
// k of kPack.
template <int MR>
void product_rows(const Element* a, int64_t lda, const Element* b, int64_t panel, int64_t k, float* c,
                  int64_t ldc, int64_t columns, bool add) {
  for (int64_t n = 0; n < columns; n += kTile, b += panel) {
    switch (std::min<int64_t>(kTile, columns - n) / W) {
      case 4:
        if constexpr (Dot::kTileLanes >= 4) Dot::tile<MR, 4>(a, lda, b, k, c + n, ldc, add);
        break;
      case 3:
        if constexpr (Dot::kTileLanes >= 3) Dot::tile<MR, 3>(a, lda, b, k, c + n, ldc, add);
        break;
      case 2:
        Dot::tile<MR, 2>(a, lda, b, k, c + n, ldc, add);
        break;
      default:
        Dot::tile<MR, 1>(a, lda, b, k, c + n, ldc, add);
    }
  }
}
void product(const Element* a, int64_t lda, const Element* b, int64_t panel, int64_t k, float* c, int64_t ldc,
             int64_t rows, int64_t columns, bool add) {
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    product_rows<kRows>(a + r * lda, lda, b, panel, k, c + r * ldc, ldc, columns, add);
  for (; r < rows; ++r) product_rows<1>(a + r * lda, lda, b, panel, k, c + r * ldc, ldc, columns, add);
}

Element pack(float x) { return stoker::from_float<Element>(x); }
template <typename T>
Element convert(T x) {
  if constexpr (std::is_same_v<T, Element>) return x;
  else return pack(stoker::to_float(x));
}

// src: `rows` rows of dh values, `stride` apart. Rows up to `padded` become zero.
template <typename T>
void pack_rows(const T* src, int64_t stride, int64_t rows, int64_t padded, int64_t dh, Element* out,
               int64_t ld) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < dh; ++d) out[r * ld + d] = convert(src[r * stride + d]);
  std::memset(static_cast<void*>(out + rows * ld), 0,
              static_cast<size_t>((padded - rows) * ld) * sizeof(Element));
}
// out[d][r]: rows become columns, row-major
template <typename T>
void pack_transposed(const T* src, int64_t stride, int64_t rows, int64_t padded, int64_t dh, Element* out) {
  for (int64_t d = 0; d < dh; ++d) {
    for (int64_t r = 0; r < rows; ++r) out[d * padded + r] = convert(src[r * stride + d]);
    for (int64_t r = rows; r < padded; ++r) out[d * padded + r] = pack(0);
  }
}
// B operand whose columns are the rows of src and whose k is d
template <typename T>
void pack_columns(const T* src, int64_t stride, int64_t rows, int64_t padded, int64_t dh, Element* out) {
  constexpr int P = Dot::kPack;
  for (int64_t first = 0; first < padded; first += kTile, out += dh * kTile)
    for (int64_t d = 0; d < dh; d += P)
      for (int64_t c = 0; c < kTile; ++c)
        for (int64_t e = 0; e < P; ++e)
          out[(d * kTile) + c * P + e] =
              first + c < rows ? convert(src[(first + c) * stride + d + e]) : pack(0);
}
// B operand whose columns are d and whose k is the row of src
template <typename T>
void pack_depth(const T* src, int64_t stride, int64_t rows, int64_t padded, int64_t dh, Element* out) {
  constexpr int P = Dot::kPack;
  for (int64_t first = 0; first < dh; first += kTile, out += padded * kTile)
    for (int64_t r = 0; r < padded; r += P)
      for (int64_t e = 0; e < P; ++e)
        for (int64_t c = 0; c < kTile; ++c)
          out[r * kTile + c * P + e] =
              r + e < rows && first + c < dh ? convert(src[(r + e) * stride + first + c]) : pack(0);
}

// The geometry of one call, and where one head's memory begins. Queries and keys may be stretches of a row: key k stands at
// position k + key_position, query t at t + query_position.
struct Plan {
  const void *query, *key, *value;  // of position 0, head 0
  const int32_t* document_start;
  int64_t batch, heads, kv_heads, dh, length, key_length, window;
  int64_t stride, batch_stride;          // between positions, between rows of the batch: of queries
  int64_t key_stride, key_batch_stride;  // of keys and values
  int64_t held;                          // positions of a row in the tensors of queries
  int64_t query_position, key_position;
  float scale;
  stoker::Dtype dtype;

  int64_t group = heads / kv_heads, ahead = query_position - key_position;
  int64_t out_stride = heads * dh, out_batch_stride = held * out_stride;
  int64_t columns = up(dh, W);             // of a float row of dh values
  int64_t panels = up(dh, kTile) / kTile;  // B panels over dh
  int64_t keys = up(up(key_length, kBackKeys), kTile), queries = up(length, kTile);  // whole panels

  // Query t sees keys [first_key, last_key); key k is seen by queries from first_query on.
  int64_t first_key(int64_t b, int64_t t) const {
    const int64_t document = document_start ? document_start[b * held + t] - key_position : 0;
    return std::max<int64_t>(0, window ? std::max(document, t + ahead - window + 1) : document);
  }
  int64_t last_key(int64_t t) const { return std::min(key_length, t + ahead + 1); }
  int64_t first_query(int64_t k) const { return std::max<int64_t>(0, k - ahead); }
  template <typename T>
  const T* query_at(int64_t b, int64_t t, int64_t h) const {
    return static_cast<const T*>(query) + b * batch_stride + t * stride + h * dh;
  }
  int64_t out_at(int64_t b, int64_t t, int64_t h) const {
    return b * out_batch_stride + t * out_stride + h * dh;
  }
  int64_t lse_at(int64_t b, int64_t t, int64_t h) const { return (b * heads + h) * held + t; }
};

const char* element_at(const stoker::TensorView& v, int64_t i) {
  return static_cast<const char*>(v.data) + i * static_cast<int64_t>(stoker::dtype_size(v.dtype));
}

template <typename Args>
Plan whole_plan(const Args& a) {
  const int64_t dh = a.qkv.shape[3], all = a.heads + 2 * a.kv_heads, length = a.qkv.shape[1],
                stride = all * dh;
  return {a.qkv.data,
          element_at(a.qkv, a.heads * dh),
          element_at(a.qkv, (a.heads + a.kv_heads) * dh),
          static_cast<const int32_t*>(a.document_start.data),
          a.qkv.shape[0],
          a.heads,
          a.kv_heads,
          dh,
          length,
          length,
          a.window,
          stride,
          length * stride,
          stride,
          length * stride,
          length,
          0,
          0,
          a.scale,
          a.qkv.dtype};
}

Plan part_plan(const ops::AttentionStretch& s) {
  const int64_t dh = s.qkv.shape[3], held = s.qkv.shape[1], stride = (s.heads + 2 * s.kv_heads) * dh,
                key_stride = 2 * s.kv_heads * dh;
  return {element_at(s.qkv, s.query * stride),
          element_at(s.kv, s.key * key_stride),
          element_at(s.kv, s.key * key_stride + s.kv_heads * dh),
          s.document_start ? static_cast<const int32_t*>(s.document_start.data) + s.query : nullptr,
          s.qkv.shape[0],
          s.heads,
          s.kv_heads,
          dh,
          s.queries,
          s.keys,
          s.window,
          stride,
          held * stride,
          key_stride,
          s.kv.shape[1] * key_stride,
          held,
          s.query_position,
          s.key_position,
          s.scale,
          s.qkv.dtype};
}

// Hands out aligned pieces of one thread's scratch; with a null base it only counts.
struct Pieces {
  char* base;
  size_t used = 0;
  template <typename T>
  T* take(int64_t n) {
    T* p = reinterpret_cast<T*>(base + used);
    used += (static_cast<size_t>(n) * sizeof(T) + 63) / 64 * 64;
    return p;
  }
};

struct ForwardScratch {
  Element *keys, *values, *queries, *probabilities;
  float *scores, *sums, *top, *total;
  template <typename P>
  ForwardScratch(const P& p, Pieces& s)
      : keys(s.take<Element>(p.keys * p.dh)),
        values(s.take<Element>(p.panels * kTile * p.keys)),
        queries(s.take<Element>(kQueryBlock * p.dh)),
        probabilities(s.take<Element>(kQueryBlock * kKeyBlock)),
        scores(s.take<float>(kQueryBlock * kKeyBlock)),
        sums(s.take<float>(kQueryBlock * p.columns)),
        top(s.take<float>(kQueryBlock)),
        total(s.take<float>(kQueryBlock)) {}
};

// Turns scores of keys [begin, end) (block-relative) of one query into probabilities; only [lo, hi) is
// visible. Keeps the running maximum and sum (log2 units) and rescales what was summed before.
void softmax_piece(const float* scores, Element* out, int64_t begin, int64_t end, int64_t lo, int64_t hi,
                   float scale2, float& top, float& total, float* sums, int64_t columns) {
  const Lanes low = Lanes::set(-INFINITY), factor = Lanes::set(scale2);
  if (lo >= hi) {
    for (int64_t i = begin; i < end; i += W) Dot::store_row(out + i, Lanes::set(0));
    return;
  }
  Lanes best = low;
  for (int64_t i = down(lo, W); i < hi; i += W)
    best = Lanes::max(best,
                      Lanes::load(scores + i).keep(static_cast<int>(lo - i), static_cast<int>(hi - i), low));
  const float fresh = std::max(top, best.top() * scale2);
  if (fresh > top && total > 0) {
    const float shrink = std::exp2(top - fresh);
    total *= shrink;
    for (int64_t i = 0; i < columns; i += W) (Lanes::load(sums + i) * Lanes::set(shrink)).store(sums + i);
  }
  top = fresh;
  Lanes sum = Lanes::set(0);
  for (int64_t i = begin; i < end; i += W) {
    Lanes p = Lanes::set(0);
    if (i + W > lo && i < hi) {
      p = exp2_lanes(Lanes::fma(Lanes::load(scores + i), factor, Lanes::set(-fresh)));
      if (i < lo || i + W > hi) p = p.keep(static_cast<int>(lo - i), static_cast<int>(hi - i), Lanes::set(0));
      sum = sum + p;
    }
    Dot::store_row(out + i, p);
  }
  total += sum.sum();
}

// What becomes of a query's sums: the output, or one more part of it.
struct WholeOutput {
  template <typename T>
  static void store(const Plan& p, const ops::AttentionForward& a, int64_t b, int64_t t, int64_t h,
                    const float* sums, float top, float total) {
    T* out = static_cast<T*>(a.out.data) + p.out_at(b, t, h);
    const float inverse = 1 / total;
    for (int64_t d = 0; d < p.dh; ++d) out[d] = stoker::from_float<T>(sums[d] * inverse);
    static_cast<float*>(a.lse.data)[p.lse_at(b, t, h)] = (top + std::log2(total)) * 0.6931471805599453f;
  }
};
struct PartOutput {
  template <typename T>
  static void store(const Plan& p, const ops::AttentionPartForward& a, int64_t b, int64_t t, int64_t h,
                    const float* sums, float top, float total) {
    if (total == 0) return;  // sees none of these keys
    float* out = static_cast<float*>(a.out.data) + a.at.query * p.out_stride + p.out_at(b, t, h);
    float& lse = static_cast<float*>(a.lse.data)[a.at.query + p.lse_at(b, t, h)];
    const float part = (top + std::log2(total)) * 0.6931471805599453f, both = std::max(lse, part);
    const float merged = both + std::log(std::exp(lse - both) + std::exp(part - both));
    const float keep = std::exp(lse - merged), take = std::exp(part - merged) / total;
    for (int64_t d = 0; d < p.dh; ++d) out[d] = out[d] * keep + sums[d] * take;
    lse = merged;
  }
};

template <typename T, typename Output, typename Args>
void forward_query_block(const Plan& p, const Args& a, const ForwardScratch& s, int64_t b, int64_t h,
                         int64_t q0) {
  const int64_t rows = std::min<int64_t>(kQueryBlock, p.length - q0);
  const float scale2 = p.scale * kLog2E;
  pack_rows(p.query_at<T>(b, q0, h), p.stride, rows, kQueryBlock, p.dh, s.queries, p.dh);
  std::fill_n(s.sums, kQueryBlock * p.columns, 0.0f);
  std::fill_n(s.top, kQueryBlock, -INFINITY);
  std::fill_n(s.total, kQueryBlock, 0.0f);
  for (int64_t k0 = down(p.first_key(b, q0), kKeyBlock); k0 < p.last_key(q0 + rows - 1); k0 += kKeyBlock)
    for (int64_t r = 0; r < rows; r += kRows) {
      const int64_t n = std::min<int64_t>(kRows, rows - r), last = q0 + r + n - 1;
      const int64_t begin = std::max<int64_t>(0, down(p.first_key(b, q0 + r), kTile) - k0);
      const int64_t end = std::min<int64_t>(kKeyBlock, up(p.last_key(last) - k0, kTile));
      if (begin >= end) continue;
      float* scores = s.scores + r * kKeyBlock;
      product(s.queries + r * p.dh, p.dh, s.keys + (k0 + begin) * p.dh, kTile * p.dh, p.dh, scores + begin,
              kKeyBlock, n, end - begin, false);
      for (int64_t i = r; i < r + n; ++i)
        softmax_piece(s.scores + i * kKeyBlock, s.probabilities + i * kKeyBlock, begin, end,
                      std::max(begin, p.first_key(b, q0 + i) - k0), std::min(end, p.last_key(q0 + i) - k0),
                      scale2, s.top[i], s.total[i], s.sums + i * p.columns, p.columns);
      product(s.probabilities + r * kKeyBlock + begin, kKeyBlock, s.values + (k0 + begin) * kTile,
              p.keys * kTile, end - begin, s.sums + r * p.columns, p.columns, n, p.columns, true);
    }
  for (int64_t i = 0; i < rows; ++i)
    Output::template store<T>(p, a, b, q0 + i, h, s.sums + i * p.columns, s.top[i], s.total[i]);
}

template <typename T, typename Output, typename Args>
void forward_task(const Plan& p, const Args& a, int64_t task, char* memory) {
  Pieces pieces{memory};
  const ForwardScratch s(p, pieces);
  const int64_t b = task / p.kv_heads, g = task % p.kv_heads, at = b * p.key_batch_stride + g * p.dh;
  pack_columns(static_cast<const T*>(p.key) + at, p.key_stride, p.key_length, p.keys, p.dh, s.keys);
  pack_depth(static_cast<const T*>(p.value) + at, p.key_stride, p.key_length, p.keys, p.dh, s.values);
  for (int64_t h = g * p.group; h < (g + 1) * p.group; ++h)
    for (int64_t q0 = 0; q0 < p.length; q0 += kQueryBlock) forward_query_block<T, Output>(p, a, s, b, h, q0);
}

struct BackwardScratch {
  Element *key_rows, *value_rows, *keys_transposed, *query_columns, *dout_columns, *query_depth, *dout_depth,
      *p, *ds, *ds_pairs;
  float *dkeys, *dvalues, *dqueries, *scores, *dp, *lse2, *delta;
  int32_t* visible_until;  // the first query that no longer sees this key
  template <typename P>
  BackwardScratch(const P& g, Pieces& s)
      : key_rows(s.take<Element>(g.keys * g.dh)),
        value_rows(s.take<Element>(g.keys * g.dh)),
        keys_transposed(s.take<Element>(g.keys * g.dh)),
        query_columns(s.take<Element>(g.queries * g.dh)),
        dout_columns(s.take<Element>(g.queries * g.dh)),
        query_depth(s.take<Element>(g.queries * g.panels * kTile)),
        dout_depth(s.take<Element>(g.queries * g.panels * kTile)),
        p(s.take<Element>(kBackKeys * kBackQueries)),
        ds(s.take<Element>(kBackKeys * kBackQueries)),
        ds_pairs(s.take<Element>(kBackKeys * kBackQueries)),
        dkeys(s.take<float>(g.keys * g.columns)),
        dvalues(s.take<float>(g.keys * g.columns)),
        dqueries(s.take<float>(g.dh * g.queries)),
        scores(s.take<float>(kBackKeys * kBackQueries)),
        dp(s.take<float>(kBackKeys * kBackQueries)),
        lse2(s.take<float>(g.queries)),
        delta(s.take<float>(g.queries)),
        visible_until(s.take<int32_t>(g.keys)) {}
};

// Rows k, k+1 of the transposed scores: probabilities, score gradients, both packed. Columns are queries c0 +
// [begin, end).
void backward_row_pair(const Plan& g, const BackwardScratch& s, int64_t key, int64_t row, int64_t c0,
                       int64_t begin, int64_t end, float scale2) {
  for (int64_t i = begin; i < end; i += W) {
    Lanes ds[2];
    for (int64_t e = 0; e < 2; ++e) {
      const int64_t at = (row + e) * kBackQueries + i, q = c0 + i;
      const int64_t lo = g.first_query(key + e) - q, hi = s.visible_until[key + e] - q;
      Lanes p = Lanes::set(0);
      ds[e] = p;
      if (lo < W && hi > 0) {
        p = exp2_lanes(Lanes::fma(Lanes::load(s.scores + at), Lanes::set(scale2),
                                  Lanes::set(0) - Lanes::load(s.lse2 + q)));
        if (lo > 0 || hi < W)
          p = p.keep(static_cast<int>(std::max<int64_t>(lo, 0)), static_cast<int>(std::min<int64_t>(hi, W)),
                     Lanes::set(0));
        ds[e] = p * (Lanes::load(s.dp + at) - Lanes::load(s.delta + q));
      }
      Dot::store_row(s.p + at, p);
      Dot::store_row(s.ds + at, ds[e]);
    }
    Dot::store_pair(s.ds_pairs + (i / kTile) * kBackKeys * kTile, row, i % kTile, ds[0], ds[1]);
  }
}

// Key block j against query chunk c0.
void backward_block(const Plan& g, const BackwardScratch& s, int64_t j, int64_t c0) {
  const float scale2 = g.scale * kLog2E;
  const int64_t columns = std::min<int64_t>(kBackQueries, g.queries - c0);
  const int64_t last = std::min(c0 + columns + g.ahead, g.key_length);  // keys that some of these queries see
  int64_t rows = 0;
  for (int64_t r = 0; r < kBackKeys && j + r < last; r += kRows, rows = r) {
    const int64_t key = j + r, begin = std::max<int64_t>(0, down(g.first_query(key), kTile) - c0),
                  width = columns - begin;
    const int64_t at = r * kBackQueries + begin, first = c0 + begin;
    product(s.key_rows + key * g.dh, g.dh, s.query_columns + first * g.dh, kTile * g.dh, g.dh, s.scores + at,
            kBackQueries, kRows, width, false);
    product(s.value_rows + key * g.dh, g.dh, s.dout_columns + first * g.dh, kTile * g.dh, g.dh, s.dp + at,
            kBackQueries, kRows, width, false);
    for (int64_t e = 0; e < kRows; e += 2)
      backward_row_pair(g, s, key + e, r + e, c0, begin, columns, scale2);
    product(s.p + at, kBackQueries, s.dout_depth + first * kTile, g.queries * kTile, width,
            s.dvalues + key * g.columns, g.columns, kRows, g.columns, true);
    product(s.ds + at, kBackQueries, s.query_depth + first * kTile, g.queries * kTile, width,
            s.dkeys + key * g.columns, g.columns, kRows, g.columns, true);
  }
  for (int64_t n = 0; n < columns; n += kTile) {
    // keys that this panel of queries can see: groups of rows that begin before its end
    const int64_t k = std::min(rows, up(std::max<int64_t>(0, c0 + n + kTile + g.ahead - j), kRows));
    if (k > 0)
      product(s.keys_transposed + j, g.keys, s.ds_pairs + (n / kTile) * kBackKeys * kTile, 0, k,
              s.dqueries + c0 + n, g.queries, g.dh, kTile, true);
  }
}

// Where the gradients go: into dqkv, or added to the sums over parts.
struct WholeGradient {
  template <typename T>
  static void query(const Plan& g, const ops::AttentionBackward& a, int64_t b, int64_t h,
                    const float* dqueries) {
    T* out = static_cast<T*>(a.dqkv.data) + b * g.batch_stride + h * g.dh;
    for (int64_t t = 0; t < g.length; ++t)
      for (int64_t d = 0; d < g.dh; ++d)
        out[t * g.stride + d] = stoker::from_float<T>(dqueries[d * g.queries + t] * g.scale);
  }
  template <typename T>
  static void keys(const Plan& g, const ops::AttentionBackward& a, int64_t b, int64_t kv, const float* dkeys,
                   const float* dvalues) {
    T* key = static_cast<T*>(a.dqkv.data) + b * g.batch_stride + (g.heads + kv) * g.dh;
    T* value = key + g.kv_heads * g.dh;
    for (int64_t t = 0; t < g.key_length; ++t)
      for (int64_t d = 0; d < g.dh; ++d) {
        key[t * g.stride + d] = stoker::from_float<T>(dkeys[t * g.columns + d] * g.scale);
        value[t * g.stride + d] = stoker::from_float<T>(dvalues[t * g.columns + d]);
      }
  }
  static constexpr int64_t first(const ops::AttentionBackward&) { return 0; }
};
struct PartGradient {
  template <typename T>
  static void query(const Plan& g, const ops::AttentionPartBackward& a, int64_t b, int64_t h,
                    const float* dqueries) {
    float* out = static_cast<float*>(a.dq.data) + a.at.query * g.out_stride + g.out_at(b, 0, h);
    for (int64_t t = 0; t < g.length; ++t)
      for (int64_t d = 0; d < g.dh; ++d) out[t * g.out_stride + d] += dqueries[d * g.queries + t] * g.scale;
  }
  template <typename T>
  static void keys(const Plan& g, const ops::AttentionPartBackward& a, int64_t b, int64_t kv,
                   const float* dkeys, const float* dvalues) {
    float* key =
        static_cast<float*>(a.dkv.data) + b * g.key_batch_stride + a.at.key * g.key_stride + kv * g.dh;
    float* value = key + g.kv_heads * g.dh;
    for (int64_t t = 0; t < g.key_length; ++t)
      for (int64_t d = 0; d < g.dh; ++d) {
        key[t * g.key_stride + d] += dkeys[t * g.columns + d] * g.scale;
        value[t * g.key_stride + d] += dvalues[t * g.columns + d];
      }
  }
  static constexpr int64_t first(const ops::AttentionPartBackward& a) { return a.at.query; }
};

template <typename T, typename Output, typename Args>
void backward_head(const Plan& g, const Args& a, const BackwardScratch& s, int64_t b, int64_t h) {
  const int64_t at = Output::first(a) * g.out_stride + g.out_at(b, 0, h);
  const T *dout = static_cast<const T*>(a.dout.data) + at, *out = static_cast<const T*>(a.out.data) + at;
  const float* lse = static_cast<const float*>(a.lse.data) + Output::first(a) + g.lse_at(b, 0, h);
  const T* query = g.query_at<T>(b, 0, h);
  const int64_t out_stride = g.out_stride;
  pack_columns(query, g.stride, g.length, g.queries, g.dh, s.query_columns);
  pack_columns(dout, out_stride, g.length, g.queries, g.dh, s.dout_columns);
  pack_depth(query, g.stride, g.length, g.queries, g.dh, s.query_depth);
  pack_depth(dout, out_stride, g.length, g.queries, g.dh, s.dout_depth);
  for (int64_t t = 0; t < g.queries; ++t) {
    float sum = 0;
    for (int64_t d = 0; t < g.length && d < g.dh; ++d)
      sum += stoker::to_float(out[t * out_stride + d]) * stoker::to_float(dout[t * out_stride + d]);
    s.delta[t] = sum;
    s.lse2[t] = t < g.length ? lse[t] * kLog2E : 0;
  }
  std::fill_n(s.dqueries, g.dh * g.queries, 0.0f);
  for (int64_t j = 0; j < g.key_length; j += kBackKeys) {
    const int64_t last_visible = s.visible_until[std::min(j + kBackKeys, g.key_length) - 1];
    for (int64_t c0 = down(g.first_query(j), kBackQueries); c0 < std::min(g.length, last_visible);
         c0 += kBackQueries)
      backward_block(g, s, j, c0);
  }
  Output::template query<T>(g, a, b, h, s.dqueries);
}

template <typename T, typename Output, typename Args>
void backward_task(const Plan& g, const Args& a, int64_t task, char* memory) {
  Pieces pieces{memory};
  const BackwardScratch s(g, pieces);
  const int64_t b = task / g.kv_heads, kv = task % g.kv_heads, at = b * g.key_batch_stride + kv * g.dh;
  const T *key = static_cast<const T*>(g.key) + at, *value = static_cast<const T*>(g.value) + at;
  pack_rows(key, g.key_stride, g.key_length, g.keys, g.dh, s.key_rows, g.dh);
  pack_rows(value, g.key_stride, g.key_length, g.keys, g.dh, s.value_rows, g.dh);
  pack_transposed(key, g.key_stride, g.key_length, g.keys, g.dh, s.keys_transposed);
  std::fill_n(s.dkeys, g.keys * g.columns, 0.0f);
  std::fill_n(s.dvalues, g.keys * g.columns, 0.0f);
  for (int64_t k = 0, q = 0; k < g.keys; ++k) {
    while (q < g.length && g.first_key(b, q) <= k) ++q;
    s.visible_until[k] = static_cast<int32_t>(k < g.key_length ? q : 0);
  }
  for (int64_t h = kv * g.group; h < (kv + 1) * g.group; ++h) backward_head<T, Output>(g, a, s, b, h);
  Output::template keys<T>(g, a, b, kv, s.dkeys, s.dvalues);
}

template <typename Scratch, typename Args, typename Task>
void over_tasks(ops::Context& context, const Plan& plan, const Args& a, Task f32, Task bf16) {
  Pieces counted{nullptr};
  Scratch(plan, counted);
  const size_t each = (counted.used + 4095) / 4096 * 4096 + 4096 -
                      64 * 7;  // not a power of two apart: threads would share cache sets
  char* memory = static_cast<char*>(context.scratch(each * static_cast<size_t>(stoker::compute_threads())));
  stoker::parallel_tasks(plan.batch * plan.kv_heads, [&](int64_t task, int thread) {
    (plan.dtype == stoker::Dtype::kF32 ? f32 : bf16)(plan, a, task,
                                                     memory + static_cast<size_t>(thread) * each);
  });
}

void attention_forward_cpu(ops::Context& context, const ops::AttentionForward& a) {
  using A = ops::AttentionForward;
  over_tasks<ForwardScratch>(context, whole_plan(a), a, forward_task<float, WholeOutput, A>,
                             forward_task<Bf16, WholeOutput, A>);
}
void attention_backward_cpu(ops::Context& context, const ops::AttentionBackward& a) {
  using A = ops::AttentionBackward;
  over_tasks<BackwardScratch>(context, whole_plan(a), a, backward_task<float, WholeGradient, A>,
                              backward_task<Bf16, WholeGradient, A>);
}
void attention_part_forward_cpu(ops::Context& context, const ops::AttentionPartForward& a) {
  using A = ops::AttentionPartForward;
  over_tasks<ForwardScratch>(context, part_plan(a.at), a, forward_task<float, PartOutput, A>,
                             forward_task<Bf16, PartOutput, A>);
}
void attention_part_backward_cpu(ops::Context& context, const ops::AttentionPartBackward& a) {
  using A = ops::AttentionPartBackward;
  over_tasks<BackwardScratch>(context, part_plan(a.at), a, backward_task<float, PartGradient, A>,
                              backward_task<Bf16, PartGradient, A>);
}

}  // namespace
