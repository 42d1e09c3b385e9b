#include "data/tokenizer/encode_cache.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "base/hash.h"

namespace stoker::tokenizer {

EncodeCache::EncodeCache(const Bpe& bpe, const std::function<int32_t(std::string_view)>& whole)
    : bpe_(bpe), whole_(whole) {
  constexpr size_t kBytes = sizeof(Bucket) << kBucketBits, kHuge = size_t{2} << 20;
  // Aligned to huge pages and not touched: the first write to each part brings it in, zeroed.
  void* memory = std::aligned_alloc(kHuge, kBytes);
  if (!memory) throw std::bad_alloc();
  madvise(memory, kBytes, MADV_HUGEPAGE);
  buckets_ = static_cast<Bucket*>(memory);
  std::memset(memory, 0, kBytes);
}

EncodeCache::~EncodeCache() { std::free(buckets_); }

void EncodeCache::clear() {
  std::memset(static_cast<void*>(buckets_), 0, sizeof(Bucket) << kBucketBits);
  spilled_.clear();
}

void EncodeCache::fresh(std::string_view piece, std::vector<int32_t>& tokens) {
  const int32_t id = whole_ ? whole_(piece) : -1;
  if (id >= 0) tokens.push_back(id);
  else bpe_.merge(piece, tokens);
}

const EncodeCache::Slot& EncodeCache::find_or_insert(size_t home, PieceKey key, std::string_view piece) {
  Slot* place = nullptr;
  for (size_t probe = 0; probe < kProbes && !place; ++probe) {
    for (Slot& slot : buckets_[(home + probe) & (kBuckets - 1)].slot) {
      if (slot.key == key) return slot;
      if (!slot.key.high) {
        place = &slot;
        break;
      }
    }
  }
  scratch_.clear();
  fresh(piece, scratch_);
  // The first comer of a bucket tends to be a frequent one: it stays.
  if (!place) place = &buckets_[home].slot[1];
  if (spilled_.size() > kSpillLimit) {
    clear();
    place = &buckets_[home].slot[0];
  }
  Slot slot{key, {}, static_cast<int32_t>(scratch_.size())};
  if (slot.count <= kInline) {
    std::memcpy(slot.tokens, scratch_.data(), scratch_.size() * sizeof(int32_t));
  } else {
    slot.tokens[0] = static_cast<int32_t>(spilled_.size());
    spilled_.insert(spilled_.end(), scratch_.begin(), scratch_.end());
  }
  return *place = slot;
}

void EncodeCache::encode_long(std::string_view piece, std::vector<int32_t>& out) {
  if (piece.size() > kLongest) return fresh(piece, out);
  if (long_slots_.empty()) long_slots_.resize(kLongSlots);
  const uint64_t hash = hash64(piece);
  size_t home = hash & (kLongSlots - 1), at = home;
  for (size_t probe = 0; probe < kProbes; ++probe, at = (at + 1) & (kLongSlots - 1)) {
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
  if (long_keys_.size() > (size_t{1} << 22) || long_tokens_.size() > kSpillLimit) {
    std::fill(long_slots_.begin(), long_slots_.end(), LongSlot{});
    long_keys_.clear();
    long_tokens_.clear();
  }
  long_slots_[home] = {hash, static_cast<uint32_t>(long_keys_.size()), static_cast<uint32_t>(piece.size()),
                       static_cast<uint32_t>(long_tokens_.size()), static_cast<uint32_t>(scratch_.size())};
  long_keys_.insert(long_keys_.end(), piece.begin(), piece.end());
  long_tokens_.insert(long_tokens_.end(), scratch_.begin(), scratch_.end());
}

void EncodeCache::encode(const PieceFinder& find, std::string_view text, std::vector<int32_t>& out) {
  size_t ends[kPieceBatch];
  PieceKey keys[kPieceBatch];
  uint32_t homes[kPieceBatch];
  int32_t tokens[kPieceBatch * kInline + 1];
  for (size_t begin = 0; begin < text.size();) {
    const size_t count = find(text, begin, ends, kPieceBatch);
    // First all keys, so that the table's cache lines are under way when they are looked at.
    size_t at = begin;
    for (size_t i = 0; i < count; ++i) {
      const size_t size = ends[i] - at;
      keys[i] = make_key(text.data() + at, size, text.size() - at);
      homes[i] = static_cast<uint32_t>(hash_key(keys[i]) >> (64 - kBucketBits));
      __builtin_prefetch(buckets_ + homes[i]);
      at = ends[i];
    }
    int32_t* to = tokens;
    for (size_t i = 0; i < count; ++i) {
      const std::string_view piece(text.data() + begin, ends[i] - begin);
      begin = ends[i];
      const Slot* slot = &buckets_[homes[i]].slot[0];
      if (piece.size() > kMaxKeyBytes) [[unlikely]] {
        out.insert(out.end(), tokens, to);
        to = tokens;
        encode_long(piece, out);
        continue;
      }
      // Which of the two it is cannot be predicted, so it is computed.
      auto differs = [&](const Slot& s) { return (s.key.low ^ keys[i].low) | (s.key.high ^ keys[i].high); };
      slot += differs(*slot) != 0;
      if (differs(*slot)) [[unlikely]]
        slot = &find_or_insert(homes[i], keys[i], piece);
      if (slot->count <= kInline) [[likely]] {
        std::memcpy(to, slot->tokens, sizeof slot->tokens);
        to += slot->count;
      } else {
        out.insert(out.end(), tokens, to);
        to = tokens;
        const auto* first = spilled_.data() + slot->tokens[0];
        out.insert(out.end(), first, first + slot->count);
      }
    }
    out.insert(out.end(), tokens, to);
  }
}

}  // namespace stoker::tokenizer
