#include "parallel/ring_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/threads.h"

namespace stoker::parallel {
namespace {

// out[r, first .. first + in's width) = in[r, :] as out's type; rows of out are `stride` long.
template <typename T>
void round_into(const TensorView& in, int64_t width, const TensorView& out, int64_t stride, int64_t first) {
  const float* from = in.as<float>();
  T* to = out.as<T>();
  parallel_ranges(in.count() / width, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t i = 0; i < width; ++i) to[r * stride + first + i] = from_float<T>(from[r * width + i]);
  });
}
void round_into(const TensorView& in, int64_t width, const TensorView& out, int64_t stride, int64_t first) {
  if (out.dtype == Dtype::kF32) round_into<float>(in, width, out, stride, first);
  else round_into<Bf16>(in, width, out, stride, first);
}

}  // namespace

std::array<RingStretch, 2> ring_share(int64_t length, int64_t workers, int64_t rank) {
  if (length % (2 * workers))
    fail(ErrorKind::kUsage,
         "data.sequence_length ({}) is not a multiple of 2 x layout.context ({}): a row is cut into two "
         "stretches a worker",
         length, workers);
  const int64_t each = length / (2 * workers), late = 2 * workers - 1 - rank;
  return {RingStretch{rank * each, (rank + 1) * each}, RingStretch{late * each, (late + 1) * each}};
}

void take_ring_share(std::span<const int32_t> rows, int64_t length, int64_t workers, int64_t rank,
                     std::vector<int32_t>& out) {
  out.clear();
  for (size_t row = 0; row < rows.size(); row += static_cast<size_t>(length))
    for (const RingStretch& s : ring_share(length, workers, rank))
      out.insert(out.end(), rows.begin() + static_cast<int64_t>(row) + s.begin,
                 rows.begin() + static_cast<int64_t>(row) + s.end);
}

RingAttention::Memory RingAttention::take_memory(Arena& arena, const RingShape& s, int64_t workers) {
  const int64_t mine = s.length / workers;
  Memory m;
  m.sums = arena.take({s.rows, mine, s.heads, s.head_dim}, Dtype::kF32);
  for (TensorView& v : m.pairs) v = arena.take({s.rows, mine, 2 * s.kv_heads, s.head_dim}, s.dtype);
  if (s.training)
    for (TensorView& v : m.dpairs) v = arena.take({s.rows, mine, 2 * s.kv_heads, s.head_dim}, Dtype::kF32);
  return m;
}

size_t RingAttention::memory_bytes(const RingShape& shape, int64_t workers) {
  Arena arena;
  take_memory(arena, shape, workers);
  return arena.bytes();
}

RingAttention::RingAttention(comm::Communicator& ring, const RingShape& shape) : ring_(ring), shape_(shape) {
  ring_share(shape.length, ring.size(), ring.rank());
  take_memory(arena_, shape, ring.size());
  arena_.commit();
  m_ = take_memory(arena_, shape, ring.size());
}

void RingAttention::pack_pairs(const TensorView& qkv) const {
  const size_t element = dtype_size(shape_.dtype), heads = static_cast<size_t>(shape_.heads),
               pairs = 2 * static_cast<size_t>(shape_.kv_heads), dh = static_cast<size_t>(shape_.head_dim);
  const size_t from = (heads + pairs) * dh * element, to = pairs * dh * element;
  const auto* in = static_cast<const std::byte*>(qkv.data) + heads * dh * element;
  auto* out = static_cast<std::byte*>(m_.pairs[0].data);
  parallel_ranges(qkv.shape[0] * qkv.shape[1], [&](int64_t begin, int64_t end, int) {
    for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r)
      std::memcpy(out + r * to, in + r * from, to);
  });
}

template <typename Step>
void RingAttention::go_round(const Step& step) {
  const int n = ring_.size(), me = ring_.rank(), next = (me + 1) % n, before = (me + n - 1) % n;
  for (int s = 0; s < n; ++s) {
    const int held = s % 2;
    comm::Ticket out, in;
    if (s + 1 < n) {
      in = ring_.post_receive(m_.pairs[1 - held].byte_span(), before);
      out = ring_.post_send(m_.pairs[held].byte_span(), next);
    }
    step((me - s + n) % n, held);
    if (in) ring_.await(in), ring_.await(out);
  }
}

template <typename Args, typename Each>
void RingAttention::meetings(const Args& a, const TensorView& pairs, int owner, const Each& each) {
  const int n = ring_.size();
  const auto queries = ring_share(shape_.length, n, ring_.rank()), keys = ring_share(shape_.length, n, owner);
  const int64_t size = queries[0].end - queries[0].begin;
  for (int64_t q = 0; q < 2; ++q)
    for (int64_t k = 0; k < 2; ++k) {
      const int64_t query = queries[static_cast<size_t>(q)].begin, key = keys[static_cast<size_t>(k)].begin;
      if (key > query) continue;  // later in the row
      ring_.poll();
      each(ops::AttentionStretch{a.qkv, pairs, a.document_start, q * size, size, k * size, size, query, key,
                                 a.heads, a.kv_heads, a.window, a.scale});
    }
}

void RingAttention::attention_forward(ops::Context& context, const ops::AttentionForward& a) {
  STOKER_CHECK(a.qkv.shape[0] == shape_.rows && a.qkv.shape[1] * ring_.size() == shape_.length &&
                   a.heads == shape_.heads && a.kv_heads == shape_.kv_heads,
               "qkv {}", to_string(a.qkv.shape));
  pack_pairs(a.qkv);
  std::memset(m_.sums.data, 0, m_.sums.bytes());
  std::fill_n(a.lse.as<float>(), a.lse.count(), -INFINITY);
  go_round([&](int owner, int held) {
    meetings(a, m_.pairs[held], owner, [&](const ops::AttentionStretch& at) {
      ops::attention_part_forward(context, {at, m_.sums, a.lse});
    });
  });
  const int64_t width = shape_.heads * shape_.head_dim;
  round_into(m_.sums, width, a.out, width, 0);
}

void RingAttention::attention_backward(ops::Context& context, const ops::AttentionBackward& a) {
  STOKER_CHECK(shape_.training);
  const int n = ring_.size(), me = ring_.rank();
  pack_pairs(a.qkv);
  std::memset(m_.sums.data, 0, m_.sums.bytes());
  std::memset(m_.dpairs[0].data, 0, m_.dpairs[0].bytes());
  go_round([&](int owner, int held) {
    meetings(a, m_.pairs[held], owner, [&](const ops::AttentionStretch& at) {
      ops::attention_part_backward(context, {at, a.out, a.lse, a.dout, m_.sums, m_.dpairs[held]});
    });
    // On with the keys; after the last meeting they are at home again.
    ring_.exchange(m_.dpairs[held].byte_span(), (me + 1) % n, m_.dpairs[1 - held].byte_span(),
                   (me + n - 1) % n);
  });
  const int64_t queries = shape_.heads * shape_.head_dim, pairs = 2 * shape_.kv_heads * shape_.head_dim;
  round_into(m_.sums, queries, a.dqkv, queries + pairs, 0);
  round_into(m_.dpairs[n % 2], pairs, a.dqkv, queries + pairs, queries);
}

}  // namespace stoker::parallel
