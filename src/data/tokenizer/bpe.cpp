#include "data/tokenizer/bpe.h"

#include <smmintrin.h>

#include <bit>
#include <cstring>
#include <queue>

#include "base/error.h"

namespace stoker::tokenizer {

Bpe::Bpe(const std::array<int32_t, 256>& byte_tokens, const std::vector<Merge>& merges)
    : byte_tokens_(byte_tokens) {
  const size_t size = std::bit_ceil(std::max<size_t>(16, merges.size() * 2));
  slots_.resize(size);
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
  for (const Merge& m : merges) {
    short_ranks_ &= m.rank < (1u << 26) - 1;
    size_t i = home(m.left, m.right);
    while (slots_[i].left >= 0 && (slots_[i].left != m.left || slots_[i].right != m.right))
      i = (i + 1) & mask_;
    slots_[i] = {
        m.left, m.right, {m.rank, m.result}};  // a pair listed twice has its last rank, as in the reference
  }
  byte_pairs_.resize(65536, Found{kNone, -1});
  for (size_t l = 0; l < 256; ++l)
    for (size_t r = 0; r < 256; ++r)
      if (byte_tokens_[l] >= 0 && byte_tokens_[r] >= 0)
        byte_pairs_[l << 8 | r] = find(byte_tokens_[l], byte_tokens_[r]);
}

void Bpe::no_token(uint8_t byte) {
  fail(ErrorKind::kData,
       "the tokenizer's vocabulary has no token for byte 0x{:02x} ('{}'): text with this byte cannot be "
       "encoded "
       "without loss; use a tokenizer trained with the whole byte alphabet",
       byte, byte_to_alphabet(byte));
}

void Bpe::merge(std::string_view piece, std::vector<int32_t>& out) const {
  if (piece.size() > kShortPiece || !short_ranks_) return merge_long(piece, out);
  int32_t tokens[kShortPiece];
  out.insert(out.end(), tokens, tokens + merge_short(piece, tokens));
}

// order[i] is rank << 6 | i of the pair that starts at position i, all ones where there is none: the smallest is the
// next merge, the leftmost among equals. Positions stay where they are; gone ones are skipped through next and previous.
size_t Bpe::merge_short(std::string_view piece, int32_t* tokens) const {
  const auto* bytes = reinterpret_cast<const uint8_t*>(piece.data());
  const size_t n = piece.size();
  alignas(16) uint32_t order[kShortPiece];
  int32_t result[kShortPiece];
  uint8_t next[kShortPiece + 1], previous[kShortPiece + 1];
  auto set = [&](size_t i, Found f) {
    order[i] = f.rank == kNone ? kNone : f.rank << 6 | static_cast<uint32_t>(i);
    result[i] = f.id;
  };
  const size_t groups = (n + 3) / 4;
  for (size_t i = n ? n - 1 : 0; i < groups * 4; ++i) order[i] = kNone;
  for (size_t i = 0; i < n; ++i) {
    tokens[i] = byte_tokens_[bytes[i]];
    if (tokens[i] < 0) [[unlikely]]
      no_token(bytes[i]);
    next[i] = static_cast<uint8_t>(i + 1);
    previous[i + 1] = static_cast<uint8_t>(i);
    if (i + 1 < n) set(i, byte_pairs_[size_t{bytes[i]} << 8 | bytes[i + 1]]);
  }
  previous[0] = 0;
  for (;;) {
    __m128i least = _mm_load_si128(reinterpret_cast<const __m128i*>(order));
    for (size_t g = 1; g < groups; ++g)
      least = _mm_min_epu32(least, _mm_load_si128(reinterpret_cast<const __m128i*>(order) + g));
    least = _mm_min_epu32(least, _mm_shuffle_epi32(least, 0x4E));
    least = _mm_min_epu32(least, _mm_shuffle_epi32(least, 0xB1));
    const auto best = static_cast<uint32_t>(_mm_cvtsi128_si32(least));
    if (best == kNone) break;
    const size_t i = best & 63, gone = next[i], after = next[gone], before = previous[i];
    tokens[i] = result[i];
    order[gone] = kNone;
    next[i] = static_cast<uint8_t>(after);
    previous[after] = static_cast<uint8_t>(i);
    set(i, after < n ? find(tokens[i], tokens[after]) : Found{kNone, -1});
    if (i) set(before, find(tokens[before], tokens[i]));
  }
  size_t count = 0;
  for (size_t i = 0; i < n; i = next[i]) tokens[count++] = tokens[i];
  return count;
}

void Bpe::merge_long(std::string_view piece, std::vector<int32_t>& out) const {
  const auto* bytes = reinterpret_cast<const uint8_t*>(piece.data());
  const size_t n = piece.size();
  if (n >= kNone) fail(ErrorKind::kData, "a single piece of {} bytes cannot be encoded: split the text", n);
  struct Node {
    int32_t token;
    uint32_t previous, next;
    uint32_t rank;  // of the pair that starts here; an older entry of the queue is recognised by it
    int32_t merged;
  };
  std::vector<Node> nodes(n);
  using Candidate = std::pair<uint32_t, uint32_t>;  // rank, position
  std::vector<Candidate> heap;
  heap.reserve(n);
  for (size_t i = 0; i < n; ++i) {
    const int32_t token = byte_tokens_[bytes[i]];
    if (token < 0) no_token(bytes[i]);
    const Found f = i + 1 < n ? byte_pairs_[size_t{bytes[i]} << 8 | bytes[i + 1]] : Found{kNone, -1};
    const auto at = static_cast<uint32_t>(i);
    nodes[i] = {token, i ? at - 1 : kNone, i + 1 < n ? at + 1 : kNone, f.rank, f.id};
    if (f.rank != kNone) heap.emplace_back(f.rank, at);
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>{},
                                                                               std::move(heap));
  auto refresh = [&](uint32_t i) {
    Node& a = nodes[i];
    const Found f = a.next == kNone ? Found{kNone, -1} : find(a.token, nodes[a.next].token);
    a.rank = f.rank, a.merged = f.id;
    if (f.rank != kNone) queue.emplace(f.rank, i);
  };
  while (!queue.empty()) {
    const auto [rank, i] = queue.top();
    queue.pop();
    Node& a = nodes[i];
    if (a.rank != rank || a.token < 0) continue;
    Node& b = nodes[a.next];
    a.token = a.merged;
    b.token = -1, b.rank = kNone;
    a.next = b.next;
    if (a.next != kNone) nodes[a.next].previous = i;
    refresh(i);
    if (a.previous != kNone) refresh(a.previous);
  }
  for (uint32_t i = 0; i != kNone; i = nodes[i].next) out.push_back(nodes[i].token);
}

}  // namespace stoker::tokenizer
