#include "data/tokenizer/encode_cache.h"

#include <nmmintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>

#include "base/hash.h"

namespace stoker::tokenizer {

EncodeCache::EncodeCache(const Bpe& bpe, const std::function<int32_t(std::string_view)>& whole, size_t bytes)
    : bpe_(bpe),
      whole_(whole),
      table_bytes_(std::bit_floor(std::clamp(bytes, kLeastBytes, kMostBytes) * 2 / 5)),
      bucket_mask_(table_bytes_ / sizeof(Bucket) - 1),
      long_mask_(table_bytes_ / 256 - 1),
      spill_limit_(table_bytes_ / 8),
      long_key_limit_(table_bytes_ / 4) {
  // Fresh from the system, so zero already; with room to align to huge pages, the rest given back.
  void* const mapping =
      mmap(nullptr, table_bytes_ + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  auto* const begin = static_cast<char*>(mapping);
  const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (before) munmap(begin, before);
  if (before < kHugePage) munmap(begin + before + table_bytes_, kHugePage - before);
  madvise(begin + before, table_bytes_, MADV_HUGEPAGE);
  buckets_ = reinterpret_cast<Bucket*>(begin + before);
  spilled_.assign(kMaxKeyTokens, 0);
  for (auto* tokens : {&tokens_, &filled_, &pending_tokens_})
    tokens->resize((kBlockPieces + 1) * kMaxKeyTokens);
  pending_counts_.resize(kBlockPieces);
  gaps_.resize(kBlockPieces);
  pending_.resize(kBlockPieces);
  pending_slots_.resize(kBlockPieces);
}

EncodeCache::~EncodeCache() { munmap(static_cast<void*>(buckets_), table_bytes_); }

void EncodeCache::clear() {
  std::memset(static_cast<void*>(buckets_), 0, table_bytes_);
  spilled_.assign(kMaxKeyTokens, 0);
  gap_count_ = pending_count_ = settled_count_ = 0;
}

void EncodeCache::fresh(std::string_view piece, std::vector<int32_t>& tokens) {
  const int32_t id = whole_ ? whole_(piece) : -1;
  if (id >= 0) tokens.push_back(id);
  else bpe_.merge(piece, tokens);
}

// The slot of a piece that is not in its home bucket; it may be pending.
const EncodeCache::Slot* EncodeCache::find_or_add(size_t home, PieceKey key, std::string_view piece) {
  Slot* place = nullptr;
  for (size_t probe = 0; probe < kProbes && !place; ++probe) {
    for (Slot& slot : buckets_[(home + probe) & bucket_mask_].slot) {
      if (slot.key == key) return &slot;
      if (!slot.key.high) {
        place = &slot;
        break;
      }
    }
  }
  // The first comer of a bucket tends to be a frequent one: it stays.
  if (!place) place = &buckets_[home].slot[1];
  if (place->count == kPending) settle();
  if (const int32_t id = whole_ ? whole_(piece) : -1; id >= 0) {
    *place = {key, {id}, 1};
  } else {
    *place = {key, {static_cast<int32_t>(pending_count_)}, kPending};
    pending_[pending_count_] = key;
    pending_slots_[pending_count_++] = place;
  }
  return place;
}

// Merges what is pending and has no tokens yet.
void EncodeCache::settle() {
  const size_t done = settled_count_;
  if (done == pending_count_) return;
  bpe_.merge_keys(pending_.data() + done, pending_count_ - done,
                  pending_tokens_.data() + done * kMaxKeyTokens, pending_counts_.data() + done);
  settled_count_ = pending_count_;
  for (size_t i = done; i < pending_count_; ++i) {
    Slot& slot = *pending_slots_[i];
    const int32_t* const tokens = pending_tokens_.data() + i * kMaxKeyTokens;
    slot.count = pending_counts_[i];
    if (slot.count <= kInline) {
      std::memcpy(slot.tokens, tokens, sizeof slot.tokens);
    } else {
      // As many as a key can have are copied from there, whatever the count.
      const size_t at = spilled_.size() - kMaxKeyTokens;
      spilled_.resize(spilled_.size() + static_cast<size_t>(slot.count));
      std::memcpy(spilled_.data() + at, tokens, static_cast<size_t>(slot.count) * sizeof(int32_t));
      slot.tokens[0] = static_cast<int32_t>(at);
    }
  }
}

void EncodeCache::encode_long(std::string_view piece, std::vector<int32_t>& out) {
  if (piece.size() > kLongest) return fresh(piece, out);
  if (long_slots_.empty()) long_slots_.resize(long_mask_ + 1);
  const uint64_t hash = hash64(piece);
  size_t home = hash & long_mask_, at = home;
  for (size_t probe = 0; probe < kProbes; ++probe, at = (at + 1) & long_mask_) {
    const LongSlot& slot = long_slots_[at];
    if (slot.hash == hash && slot.length == piece.size() &&
        std::memcmp(long_keys_.data() + slot.key, piece.data(), piece.size()) == 0) {
      const int32_t* first = long_tokens_.data() + slot.tokens;
      out.insert(out.end(), first, first + slot.count);
      return;
    }
    if (!slot.length) {
      home = at;
      break;
    }
  }
  scratch_.clear();
  fresh(piece, scratch_);
  out.insert(out.end(), scratch_.begin(), scratch_.end());
  if (long_keys_.size() > long_key_limit_ || long_tokens_.size() > spill_limit_) {
    std::fill(long_slots_.begin(), long_slots_.end(), LongSlot{});
    long_keys_.clear();
    long_tokens_.clear();
  }
  long_slots_[home] = {hash, static_cast<uint32_t>(long_keys_.size()), static_cast<uint32_t>(piece.size()),
                       static_cast<uint32_t>(long_tokens_.size()), static_cast<uint32_t>(scratch_.size())};
  long_keys_.insert(long_keys_.end(), piece.begin(), piece.end());
  long_tokens_.insert(long_tokens_.end(), scratch_.begin(), scratch_.end());
}

namespace {

// Keys as in piece_key.h, made and compared as whole vectors. A longer piece gets length 16: no slot has it.
struct KeyShape {
  __m128i mask, length;
};
const auto kKeyShapes = [] {
  std::array<KeyShape, kMaxKeyBytes + 2> shapes;
  for (size_t length = 0; length < shapes.size(); ++length) {
    alignas(16) uint8_t mask[16] = {}, last[16] = {};
    std::memset(mask, 0xFF, std::min(length, kMaxKeyBytes));
    last[15] = static_cast<uint8_t>(length);
    shapes[length] = {_mm_load_si128(reinterpret_cast<const __m128i*>(mask)),
                      _mm_load_si128(reinterpret_cast<const __m128i*>(last))};
  }
  return shapes;
}();

inline __m128i vector_key(const char* data, size_t size) {  // 16 bytes are readable
  const KeyShape& shape = kKeyShapes[std::min(size, kMaxKeyBytes + 1)];
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
  return _mm_or_si128(_mm_and_si128(bytes, shape.mask), shape.length);
}

inline uint32_t hash_vector(__m128i key) {
  const uint64_t low = _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(key)));
  return static_cast<uint32_t>(_mm_crc32_u64(low, static_cast<uint64_t>(_mm_extract_epi64(key, 1))));
}

inline bool same(__m128i a, __m128i b) { return _mm_movemask_epi8(_mm_cmpeq_epi8(a, b)) == 0xFFFF; }

}  // namespace

// Room for about what is to come, on huge pages: taking it from the system a small page at a time is a sixth of a first pass.
void EncodeCache::make_room(std::vector<int32_t>& out, size_t more) {
  if (out.capacity() - out.size() < more) out.reserve(std::max(out.size() + more, out.capacity() * 2));
  const auto first = reinterpret_cast<uintptr_t>(out.data() + out.size());
  const auto last = reinterpret_cast<uintptr_t>(out.data() + out.capacity());
  const uintptr_t begin = (first + kHugePage - 1) / kHugePage * kHugePage, end = last / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

void EncodeCache::encode(const PieceFinder& find, std::string_view text, std::vector<int32_t>& out) {
  if (text.size() >= 4 * kHugePage) make_room(out, text.size() / 5);  // tokens of five bytes
  try {
    for (size_t begin = 0; begin < text.size();) begin = encode_block(find, text, begin, out);
  } catch (...) {
    clear();  // slots may be pending
    throw;
  }
}

// Encodes the next kBlockPieces pieces and returns where they end.
size_t EncodeCache::encode_block(const PieceFinder& find, std::string_view text, size_t begin,
                                 std::vector<int32_t>& out) {
  size_t ends[kPieceBatch];
  __m128i keys[kPieceBatch];
  uint32_t homes[kPieceBatch];
  if (spilled_.size() > spill_limit_) clear();
  int32_t* to = tokens_.data();
  for (size_t batch = 0; batch < kBlockPieces / kPieceBatch && begin < text.size(); ++batch) {
    const size_t count = find(text, begin, ends, kPieceBatch);
    // First all keys, so that the table's cache lines are under way when they are looked at.
    size_t at = begin, safe = 0;
    auto take = [&](size_t i, __m128i key) {
      keys[i] = key;
      homes[i] = hash_vector(key) & bucket_mask_;
      __builtin_prefetch(buckets_ + homes[i]);
      at = ends[i];
    };
    if (ends[count - 1] + 16 <= text.size()) [[likely]]
      for (; safe < count; ++safe) take(safe, vector_key(text.data() + at, ends[safe] - at));
    for (; safe < count; ++safe) {
      char bytes[16] = {};
      std::memcpy(bytes, text.data() + at, std::min<size_t>(16, text.size() - at));
      take(safe, vector_key(bytes, ends[safe] - at));
    }
    for (size_t i = 0; i < count; ++i) {
      const Slot* slot = &buckets_[homes[i]].slot[0];
      // Which of the two it is cannot be predicted, so it is computed.
      auto is = [&](const Slot& s) {
        return same(_mm_load_si128(reinterpret_cast<const __m128i*>(&s)), keys[i]);
      };
      const bool first = is(slot[0]), second = is(slot[1]);
      slot += !first;
      if (!(first | second)) [[unlikely]] {
        const size_t from = i ? ends[i - 1] : begin;
        const std::string_view piece = text.substr(from, ends[i] - from);
        if (piece.size() > kMaxKeyBytes) {
          gaps_[gap_count_++] = {piece.data(), piece.size(), static_cast<uint32_t>(to - tokens_.data())};
          continue;
        }
        PieceKey key;
        std::memcpy(static_cast<void*>(&key), keys + i, sizeof key);
        slot = find_or_add(homes[i], key, piece);
      }
      if (slot->count <= kInline) [[likely]] {
        // The count goes along as a fourth value that the next one overwrites.
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                         _mm_load_si128(reinterpret_cast<const __m128i*>(slot->tokens)));
        to += slot->count;
      } else if (slot->count == kPending) {
        gaps_[gap_count_++] = {nullptr, static_cast<size_t>(slot->tokens[0]),
                               static_cast<uint32_t>(to - tokens_.data())};
      } else {
        std::memcpy(to, spilled_.data() + slot->tokens[0], kMaxKeyTokens * sizeof(int32_t));
        to += slot->count;
      }
    }
    begin = ends[count - 1];
  }
  settle();
  emit(to, out);
  return begin;
}

// Appends the block's tokens, the gaps filled.
void EncodeCache::emit(const int32_t* end, std::vector<int32_t>& out) {
  const int32_t* done = tokens_.data();
  int32_t* to = filled_.data();
  for (size_t g = 0; g < gap_count_; ++g) {
    const Gap& gap = gaps_[g];
    const int32_t* const upto = tokens_.data() + gap.at;
    to = std::copy(done, upto, to);
    done = upto;
    if (gap.piece) {
      out.insert(out.end(), filled_.data(), to);
      to = filled_.data();
      encode_long({gap.piece, gap.number}, out);
    } else {
      std::memcpy(to, pending_tokens_.data() + gap.number * kMaxKeyTokens, kMaxKeyTokens * sizeof(int32_t));
      to += pending_counts_[gap.number];
    }
  }
  out.insert(out.end(), filled_.data(), to);
  out.insert(out.end(), done, end);
  gap_count_ = pending_count_ = settled_count_ = 0;
}

}  // namespace stoker::tokenizer
