#include "data/tokenizer/bpe.h"

#include <smmintrin.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <queue>

#include "base/error.h"

namespace stoker::tokenizer {

Bpe::Bpe(const std::array<int32_t, 256>& byte_tokens, const std::vector<Merge>& merges, Isa isa)
    : byte_tokens_(byte_tokens),
      ranks_(merges),
      byte_pairs_(65536, kNone),
      lanes_(isa >= Isa::kAvx512 && *std::min_element(byte_tokens.begin(), byte_tokens.end()) >= 0) {
  for (const Merge& m : merges) {
    if (m.rank >= results_.size()) results_.resize(size_t{m.rank} + 1, -1);
    results_[m.rank] = m.result;
  }
  for (size_t l = 0; l < 256; ++l)
    for (size_t r = 0; r < 256; ++r)
      if (byte_tokens_[l] >= 0 && byte_tokens_[r] >= 0)
        byte_pairs_[l << 8 | r] = ranks_.find(byte_tokens_[l], byte_tokens_[r]);
}

void Bpe::no_token(uint8_t byte) {
  fail(ErrorKind::kData,
       "the tokenizer's vocabulary has no token for byte 0x{:02x} ('{}'): text with this byte cannot be "
       "encoded "
       "without loss; use a tokenizer trained with the whole byte alphabet",
       byte, byte_to_alphabet(byte));
}

void Bpe::merge(std::string_view piece, std::vector<int32_t>& out) const {
  if (piece.size() > kShortPiece) return merge_long(piece, out);
  int32_t tokens[kShortPiece];
  out.insert(out.end(), tokens, tokens + merge_short(piece, tokens));
}

void Bpe::merge_keys(const PieceKey* keys, size_t count, int32_t* tokens, int32_t* counts) const {
  constexpr size_t kWorthwhile = 4;  // lanes with work: the others cost the same
  if (!lanes_ || count < kWorthwhile) {
    for (size_t i = 0; i < count; ++i) {
      const std::string_view piece(reinterpret_cast<const char*>(keys + i), key_length(keys[i]));
      counts[i] = static_cast<int32_t>(merge_short(piece, tokens + i * kMaxKeyTokens));
    }
    return;
  }
  // By length, sixteen times as many as there are lanes at a time, and back.
  constexpr size_t kRound = 16 * kLanes;
  PieceKey sorted[kRound];
  uint16_t order[kRound];
  int32_t sorted_tokens[kRound * kMaxKeyTokens], sorted_counts[kRound];
  for (size_t done = 0; done < count; done += kRound) {
    const size_t n = std::min(kRound, count - done);
    uint16_t at[kMaxKeyBytes + 2] = {};
    for (size_t i = 0; i < n; ++i) ++at[key_length(keys[done + i]) + 1];
    std::partial_sum(at, at + kMaxKeyBytes + 2, at);
    for (size_t i = 0; i < n; ++i) {
      const uint16_t to = at[key_length(keys[done + i])]++;
      order[to] = static_cast<uint16_t>(i);
      sorted[to] = keys[done + i];
    }
    merge_lanes_avx512({byte_tokens_.data(), byte_pairs_.data(), results_.data(), &ranks_}, sorted, n,
                       sorted_tokens, sorted_counts);
    for (size_t i = 0; i < n; ++i) {
      counts[done + order[i]] = sorted_counts[i];
      std::memcpy(tokens + (done + order[i]) * kMaxKeyTokens, sorted_tokens + i * kMaxKeyTokens,
                  kMaxKeyTokens * sizeof(int32_t));
    }
  }
}

// order[i] is the rank, and in its lowest 8 bits i, of the pair that starts at position i, all ones where there is none: the smallest is the
// next merge, the leftmost among equals. Positions stay where they are; gone ones are skipped through next and previous.
size_t Bpe::merge_short(std::string_view piece, int32_t* tokens) const {
  const auto* bytes = reinterpret_cast<const uint8_t*>(piece.data());
  const size_t n = piece.size();
  constexpr int kPositionBits = 8;
  constexpr uint32_t kPosition = (1u << kPositionBits) - 1;
  alignas(16) uint32_t order[kShortPiece];
  uint8_t next[kShortPiece + 1], previous[kShortPiece + 1];
  auto set = [&](size_t i, uint32_t rank) {
    order[i] = rank == kNone ? kNone : rank << kPositionBits | static_cast<uint32_t>(i);
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
    // Of a run (=====) the next one is right behind it, unless a pair that came about now goes before.
    for (size_t i = best & kPosition;;) {
      const size_t gone = next[i], after = next[gone], before = previous[i];
      tokens[i] = results_[best >> kPositionBits];
      order[gone] = kNone;
      next[i] = static_cast<uint8_t>(after);
      previous[after] = static_cast<uint8_t>(i);
      set(i, after < n ? ranks_.find(tokens[i], tokens[after]) : kNone);
      if (i) set(before, ranks_.find(tokens[before], tokens[i]));
      if (after >= n || (order[after] ^ best) > kPosition || order[i] < best || order[before] < best) break;
      i = after;
    }
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
  };
  std::vector<Node> nodes(n);
  using Candidate = std::pair<uint32_t, uint32_t>;  // rank, position
  std::vector<Candidate> heap;
  heap.reserve(n);
  for (size_t i = 0; i < n; ++i) {
    const int32_t token = byte_tokens_[bytes[i]];
    if (token < 0) no_token(bytes[i]);
    const uint32_t rank = i + 1 < n ? byte_pairs_[size_t{bytes[i]} << 8 | bytes[i + 1]] : kNone;
    const auto at = static_cast<uint32_t>(i);
    nodes[i] = {token, i ? at - 1 : kNone, i + 1 < n ? at + 1 : kNone, rank};
    if (rank != kNone) heap.emplace_back(rank, at);
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>{},
                                                                               std::move(heap));
  auto refresh = [&](uint32_t i) {
    Node& a = nodes[i];
    a.rank = a.next == kNone ? kNone : ranks_.find(a.token, nodes[a.next].token);
    if (a.rank != kNone) queue.emplace(a.rank, i);
  };
  while (!queue.empty()) {
    const auto [rank, i] = queue.top();
    queue.pop();
    Node& a = nodes[i];
    if (a.rank != rank || a.token < 0) continue;
    Node& b = nodes[a.next];
    a.token = results_[rank];
    b.token = -1, b.rank = kNone;
    a.next = b.next;
    if (a.next != kNone) nodes[a.next].previous = i;
    refresh(i);
    if (a.previous != kNone) refresh(a.previous);
  }
  for (uint32_t i = 0; i != kNone; i = nodes[i].next) out.push_back(nodes[i].token);
}

}  // namespace stoker::tokenizer
