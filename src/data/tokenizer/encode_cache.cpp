#include "data/tokenizer/encode_cache.h"

#include <nmmintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <utility>

#include "base/hash.h"

namespace stoker::tokenizer {

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

inline __m128i as_vector(const PieceKey& key) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(&key));
}

inline bool same(__m128i a, __m128i b) { return _mm_movemask_epi8(_mm_cmpeq_epi8(a, b)) == 0xFFFF; }

// Returns which of them are below zero.
inline unsigned copy_sixteen(const int32_t* from, int32_t* to) {
  __m128i four[4];
  for (int i = 0; i < 4; ++i) {
    four[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + i);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to) + i, four[i]);
  }
  const __m128i low = _mm_packs_epi32(four[0], four[1]), high = _mm_packs_epi32(four[2], four[3]);
  return static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(low, high)));
}

// Fresh from the system, so zero already, and aligned to huge pages: with room to align, the rest given back.
void* map_zeroed(size_t bytes, size_t huge_page) {
  void* const mapping =
      mmap(nullptr, bytes + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  auto* const begin = static_cast<char*>(mapping);
  const size_t before = (huge_page - reinterpret_cast<uintptr_t>(begin) % huge_page) % huge_page;
  if (before) munmap(begin, before);
  if (before < huge_page) munmap(begin + before + bytes, huge_page - before);
  madvise(begin + before, bytes, MADV_HUGEPAGE);
  return begin + before;
}

}  // namespace

EncodeCache::EncodeCache(const Bpe& bpe, const std::function<int32_t(std::string_view)>& whole,
                         std::span<const KnownPiece> known, size_t bytes)
    : bpe_(bpe),
      whole_(whole),
      table_slots_(std::bit_floor(std::clamp(bytes, kLeastBytes, kMostBytes) * 2 / 5) / sizeof(Slot)),
      most_long_(table_slots_ / 8),
      spill_limit_(table_slots_ * 4),
      long_key_limit_(table_slots_ * 8),
      known_(known.first(std::min<size_t>(known.size(), table_slots_ / 8))) {
  slots_ = static_cast<Slot*>(map_zeroed(table_slots_ * sizeof(Slot), kHugePage));
  new_slots_.resize(kBlockPieces);
  new_keys_.resize(kBlockPieces);
  new_counts_.resize(kBlockPieces);
  for (auto* tokens : {&tokens_, &filled_, &new_tokens_}) tokens->resize((kBlockPieces + 2) * kMaxKeyTokens);
  long_slots_.resize(std::min(kFirstLong, most_long_));
  start();
}

EncodeCache::~EncodeCache() { munmap(static_cast<void*>(slots_), table_slots_ * sizeof(Slot)); }

// What an empty table knows.
void EncodeCache::start() {
  spilled_.assign(kMaxKeyTokens, 0);
  for (const KnownPiece& known : known_)
    if (Slot* const slot = place(home_of(known.key), known.key); slot && !slot->key.high)
      *slot = {known.key, {known.token}, 1};
}

void EncodeCache::clear() {
  std::memset(static_cast<void*>(slots_), 0, table_slots_ * sizeof(Slot));
  start();
}

uint32_t EncodeCache::home_of(PieceKey key) const { return hash_vector(as_vector(key)) & (table_slots_ - 2); }

// Where the key is or belongs; nullptr where there is no room for it.
EncodeCache::Slot* EncodeCache::place(uint32_t home, PieceKey key) const {
  for (uint32_t probe = 0; probe < 2 * kProbes; ++probe) {
    Slot& slot = slots_[(home + probe) & (table_slots_ - 1)];
    if (slot.key == key || !slot.key.high) return &slot;
  }
  return nullptr;
}

// The slot of a piece that is not in its home bucket.
const EncodeCache::Slot& EncodeCache::find_or_add(uint32_t home, PieceKey key, std::string_view piece) {
  Slot* slot = place(home, key);
  if (slot && slot->key.high) return *slot;
  // The first comer of a bucket tends to be a frequent one: it stays.
  if (!slot) slot = slots_ + home + 1;
  if (const int32_t id = whole_ ? whole_(piece) : -1; id >= 0) {
    *slot = {key, {id}, 1};
  } else {
    *slot = {key, {kNew + static_cast<int32_t>(new_count_)}, 1};
    new_keys_[new_count_] = key;
    new_slots_[new_count_++] = slot;
  }
  return *slot;
}

int32_t EncodeCache::add_long(std::string_view piece) {
  const bool kept = piece.size() <= kLongest;
  const uint64_t hash = kept ? hash64(piece) : 0;
  if (kept) __builtin_prefetch(&long_slots_[hash & (long_slots_.size() - 1)]);
  long_pieces_.push_back({piece, hash, kept, 0, 0});
  long_bytes_ += piece.size();
  return kLong + static_cast<int32_t>(long_pieces_.size() - 1);
}

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
    for (size_t begin = 0; begin < text.size();) {
      begin = encode_known(find, text, begin);
      merge_new();
      merge_long();
      append_block(out);
      end_block();
    }
  } catch (...) {
    end_block();
    clear();  // slots may have no tokens yet
    throw;
  }
}

// The next pieces, about a block of them, with placeholders where they are new or long; returns where they end.
size_t EncodeCache::encode_known(const PieceFinder& find, std::string_view text, size_t begin) {
  size_t ends[kPieceBatch];
  __m128i keys[kPieceBatch];
  uint32_t homes[kPieceBatch];
  const auto bucket_mask = static_cast<uint32_t>(table_slots_ - 2);
  int32_t* to = tokens_.data();
  for (size_t pieces = 0;
       pieces + kPieceBatch <= kBlockPieces && long_bytes_ < spill_limit_ / 4 && begin < text.size();) {
    const size_t count = find(text, begin, ends, kPieceBatch);
    // First all keys, so that the table's cache lines are under way when they are looked at.
    size_t at = begin, safe = 0;
    auto take = [&](size_t i, __m128i key) {
      keys[i] = key;
      homes[i] = hash_vector(key) & bucket_mask;
      __builtin_prefetch(slots_ + homes[i]);
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
      const Slot* slot = slots_ + homes[i];
      // Which of the two it is cannot be predicted, so it is computed.
      const bool first = same(as_vector(slot[0].key), keys[i]),
                 second = same(as_vector(slot[1].key), keys[i]);
      slot += !first;
      if (!(first | second)) [[unlikely]] {
        const size_t from = i ? ends[i - 1] : begin;
        const std::string_view piece = text.substr(from, ends[i] - from);
        if (piece.size() > kMaxKeyBytes) {
          *to++ = add_long(piece);
          continue;
        }
        PieceKey key;
        std::memcpy(static_cast<void*>(&key), keys + i, sizeof key);
        slot = &find_or_add(homes[i], key, piece);
      }
      if (slot->count <= kInline) [[likely]]
        // The count goes along as a fourth value that the next one overwrites.
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                         _mm_load_si128(reinterpret_cast<const __m128i*>(slot->tokens)));
      else std::memcpy(to, spilled_.data() + slot->tokens[0], kMaxKeyTokens * sizeof(int32_t));
      to += slot->count;
    }
    pieces += count;
    begin = ends[count - 1];
  }
  token_count_ = static_cast<size_t>(to - tokens_.data());
  return begin;
}

void EncodeCache::merge_new() {
  bpe_.merge_keys(new_keys_.data(), new_count_, new_tokens_.data(), new_counts_.data());
  for (size_t i = 0; i < new_count_; ++i) {
    Slot& slot = *new_slots_[i];
    if (slot.key != new_keys_[i]) continue;  // another took its place
    const int32_t* const tokens = new_tokens_.data() + i * kMaxKeyTokens;
    slot.count = new_counts_[i];
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

// Where the piece is or belongs: an empty slot near its home, else its home.
EncodeCache::LongSlot& EncodeCache::long_place(uint64_t hash, std::string_view piece) {
  const size_t mask = long_slots_.size() - 1;
  for (size_t probe = 0; probe < kProbes; ++probe) {
    LongSlot& slot = long_slots_[(hash + probe) & mask];
    if (!slot.length || (slot.hash == hash && slot.length == piece.size() &&
                         std::memcmp(long_keys_.data() + slot.key, piece.data(), piece.size()) == 0))
      return slot;
  }
  LongSlot& home = long_slots_[hash & mask];
  home.length = 0;
  return home;
}

void EncodeCache::merge_long() {
  for (LongPiece& p : long_pieces_) {
    LongSlot* const slot = p.kept ? &long_place(p.hash, p.piece) : nullptr;
    if (slot && slot->length) {
      p.begin = slot->tokens;
      p.count = slot->count;
      continue;
    }
    std::vector<int32_t>& tokens = p.kept ? long_tokens_ : block_tokens_;
    p.begin = tokens.size();
    if (const int32_t id = whole_ ? whole_(p.piece) : -1; id >= 0) tokens.push_back(id);
    else bpe_.merge(p.piece, tokens);
    p.count = tokens.size() - p.begin;
    if (!slot) continue;
    *slot = {p.hash, static_cast<uint32_t>(long_keys_.size()), static_cast<uint32_t>(p.piece.size()),
             static_cast<uint32_t>(p.begin), static_cast<uint32_t>(p.count)};
    long_keys_.insert(long_keys_.end(), p.piece.begin(), p.piece.end());
    if (++long_kept_ > long_slots_.size() / 2 && long_slots_.size() < most_long_) grow_long();
  }
}

void EncodeCache::grow_long() {
  const std::vector<LongSlot> old = std::exchange(long_slots_, std::vector<LongSlot>(long_slots_.size() * 4));
  for (const LongSlot& slot : old)
    if (slot.length) long_place(slot.hash, {long_keys_.data() + slot.key, slot.length}) = slot;
}

// Appends the block's tokens, with what the placeholders stand for.
void EncodeCache::append_block(std::vector<int32_t>& out) {
  const int32_t* from = tokens_.data();
  if (!new_count_ && long_pieces_.empty()) {
    out.insert(out.end(), from, from + token_count_);
    return;
  }
  tokens_[token_count_] = kEnd;
  int32_t* to = filled_.data();
  const auto flush = [&] {
    out.insert(out.end(), filled_.data(), to);
    to = filled_.data();
  };
  for (;;) {
    // Sixteen at a time up to the next placeholder: what is behind it is written over.
    const unsigned below_zero = copy_sixteen(from, to);
    const int known = below_zero ? std::countr_zero(below_zero) : 16;
    from += known;
    to += known;
    if (!below_zero) continue;
    const int32_t placeholder = *from++;
    if (placeholder == kEnd) return flush();
    if (placeholder < kLong) {
      const auto i = static_cast<size_t>(placeholder - kNew);
      std::memcpy(to, new_tokens_.data() + i * kMaxKeyTokens, kMaxKeyTokens * sizeof(int32_t));
      to += new_counts_[i];
    } else {
      const LongPiece& p = long_pieces_[static_cast<size_t>(placeholder - kLong)];
      const int32_t* const first = (p.kept ? long_tokens_ : block_tokens_).data() + p.begin;
      if (p.count > kMaxKeyTokens) flush();
      if (p.count > kMaxKeyTokens) out.insert(out.end(), first, first + p.count);
      else to = std::copy_n(first, p.count, to);
    }
  }
}

void EncodeCache::end_block() {
  token_count_ = new_count_ = long_bytes_ = 0;
  long_pieces_.clear();
  block_tokens_.clear();
  if (block_tokens_.capacity() > spill_limit_) block_tokens_.shrink_to_fit();
  if (spilled_.size() > spill_limit_) clear();
  if (long_keys_.size() > long_key_limit_ || long_tokens_.size() > spill_limit_) forget_long();
}

void EncodeCache::forget_long() {
  std::fill(long_slots_.begin(), long_slots_.end(), LongSlot{});
  long_keys_.clear();
  long_tokens_.clear();
  long_kept_ = 0;
}

}  // namespace stoker::tokenizer
