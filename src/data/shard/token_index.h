// data/shard/token_index.h
// The .idx half of a Megatron-LM indexed dataset, to the byte (docs/formats/shards.md).
//   little-endian, packed, arrays misaligned on purpose: read through memcpy
//   0 magic "MMIDIDX\0\0" | 9 u64 version 1 | 17 u8 token type | 18 u64 S | 26 u64 D
//   34 i32[S] tokens per sequence | i64[S] byte offset in .bin | i64[D] first sequence of each document, last
//   = S
// Units         lengths in tokens, pointers in bytes, documents = D - 1
// Determinism   the same documents give the same bytes
// Cost          parse is O(1): header and size only; check() is O(S + D)
// Errors        Data: names the file, the offset, what was expected and what was found
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::data {

class HashedFile;

// Megatron's codes. It chooses uint16 below 65,500 words of vocabulary and int32 above; so do we.
enum class TokenType : uint8_t { kInt32 = 4, kUint16 = 8 };

inline constexpr int64_t kUint16VocabularyLimit = 65500;
TokenType token_type_for_vocabulary(int64_t vocabulary);
inline uint64_t token_bytes(TokenType type) { return type == TokenType::kUint16 ? 2 : 4; }
std::string_view to_string(TokenType type);
TokenType token_type_from_string(std::string_view name, std::string_view file);

// A view of .idx bytes that somebody else keeps alive (a mapped file).
class TokenIndex {
 public:
  static TokenIndex parse(std::span<const std::byte> bytes, std::string file);

  TokenType token_type() const { return type_; }
  uint64_t sequences() const { return sequences_; }
  uint64_t documents() const { return bounds_ - 1; }
  // 0 <= i < sequences(). Values are as the file has them: negative or wild ones are found by check() or by
  // the reader of the tokens, never trusted.
  int32_t length(uint64_t i) const { return load<int32_t>(lengths_at() + 4 * i); }
  int64_t pointer(uint64_t i) const { return load<int64_t>(pointers_at() + 8 * i); }
  int64_t first_sequence(uint64_t document) const {
    return load<int64_t>(bounds_at() + 8 * document);
  }  // <= documents()
  const std::string& file() const { return file_; }

  // In tokens of a .bin that has total_tokens of them; Data where the file says something impossible.
  uint64_t first_token(uint64_t sequence, uint64_t total_tokens) const;  // sequences(): total_tokens
  uint64_t document_start(uint64_t document,
                          uint64_t total_tokens) const;  // documents(): where the last one ends
  // The last document that starts at or before `token`: O(log documents). There must be a document.
  uint64_t document_of(uint64_t token, uint64_t total_tokens) const;

  // Every length and pointer inside a .bin of bin_bytes, in order, contiguous from 0 to its end; document
  // bounds start at 0, never fall, end at S. What this program writes always passes.
  void check(uint64_t bin_bytes) const;

  uint64_t lengths_at() const { return 34; }
  uint64_t pointers_at() const { return 34 + 4 * sequences_; }
  uint64_t bounds_at() const { return 34 + 12 * sequences_; }

 private:
  template <typename T>
  T load(uint64_t at) const {
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }
  std::span<const std::byte> bytes_;
  std::string file_;
  TokenType type_ = TokenType::kInt32;
  uint64_t sequences_ = 0, bounds_ = 0;
};

// Writes an .idx whose documents hold one sequence each, lying back to back in the .bin. each_length(f) calls f(tokens) for every
// document in order, as often as it is asked to.
void write_token_index(HashedFile& out, TokenType type, uint64_t documents,
                       const std::function<void(const std::function<void(int32_t)>&)>& each_length);

}  // namespace stoker::data
