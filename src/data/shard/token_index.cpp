#include "data/shard/token_index.h"

#include <bit>

#include "base/checked.h"
#include "base/error.h"
#include "data/shard/hashed_file.h"

namespace stoker::data {
namespace {
static_assert(std::endian::native == std::endian::little, "the shard formats are little-endian");

constexpr char kIndexMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
constexpr uint64_t kIndexHeaderBytes = 34;

std::string_view foreign_code_name(uint8_t code) {
  static constexpr std::string_view kNames[] = {"?",     "uint8", "int8",    "int16",
                                                "int32", "int64", "float64", "float32"};
  return code < 8 ? kNames[code] : "unknown";
}
}  // namespace

TokenType token_type_for_vocabulary(int64_t vocabulary) {
  return vocabulary < kUint16VocabularyLimit ? TokenType::kUint16 : TokenType::kInt32;
}

std::string_view to_string(TokenType type) { return type == TokenType::kUint16 ? "uint16" : "int32"; }

TokenType token_type_from_string(std::string_view name, std::string_view file) {
  if (name == "uint16") return TokenType::kUint16;
  if (name == "int32") return TokenType::kInt32;
  fail(ErrorKind::kData, "{}: token_type: expected \"uint16\" or \"int32\", found \"{}\"", file, name);
}

TokenIndex TokenIndex::parse(std::span<const std::byte> bytes, std::string file) {
  TokenIndex index;
  index.bytes_ = bytes;
  index.file_ = std::move(file);
  const auto& name = index.file_;
  if (bytes.size() < kIndexHeaderBytes)
    fail(ErrorKind::kData,
         "{}: an index has at least {} bytes of header, found a file of {}. It was cut short; write it again",
         name, kIndexHeaderBytes, bytes.size());
  if (std::memcmp(bytes.data(), kIndexMagic, sizeof kIndexMagic) != 0)
    fail(ErrorKind::kData,
         "{}: offset 0: expected the magic \"MMIDIDX\\0\\0\" of a Megatron index, found other bytes", name);
  const auto version = index.load<uint64_t>(9);
  if (version != 1) fail(ErrorKind::kData, "{}: offset 9: expected index version 1, found {}", name, version);
  const auto code = index.load<uint8_t>(17);
  if (code != static_cast<uint8_t>(TokenType::kUint16) && code != static_cast<uint8_t>(TokenType::kInt32))
    fail(ErrorKind::kData,
         "{}: offset 17: expected token type 8 (uint16) or 4 (int32), found {} ({}). Write the dataset again "
         "with one of these",
         name, code, foreign_code_name(code));
  index.type_ = static_cast<TokenType>(code);
  index.sequences_ = index.load<uint64_t>(18);
  index.bounds_ = index.load<uint64_t>(26);
  if (index.bounds_ == 0)
    fail(ErrorKind::kData, "{}: offset 26: expected at least one document bound (the leading 0), found 0",
         name);
  const uint64_t expected = checked_add(kIndexHeaderBytes,
                                        checked_add(checked_mul<uint64_t>(12, index.sequences_, name),
                                                    checked_mul<uint64_t>(8, index.bounds_, name), name),
                                        name);
  if (bytes.size() == expected + index.sequences_ && index.sequences_ > 0)
    fail(ErrorKind::kData,
         "{}: {} trailing bytes are the modes of a multimodal index, which Stoker does not read", name,
         index.sequences_);
  if (bytes.size() != expected)
    fail(ErrorKind::kData,
         "{}: offset 18: {} sequences and {} document bounds need a file of {} bytes, found {}. It was cut "
         "short or "
         "overwritten; write it again",
         name, index.sequences_, index.bounds_, expected, bytes.size());
  return index;
}

void TokenIndex::check(uint64_t bin_bytes) const {
  const uint64_t width = token_bytes(type_);
  uint64_t at = 0;
  for (uint64_t i = 0; i < sequences_; ++i) {
    const int32_t n = length(i);
    const int64_t p = pointer(i);
    if (n < 0)
      fail(ErrorKind::kData, "{}: offset {}: sequence {}: expected a length >= 0, found {}", file_,
           lengths_at() + 4 * i, i, n);
    if (p < 0 || static_cast<uint64_t>(p) != at)
      fail(ErrorKind::kData,
           "{}: offset {}: sequence {}: expected byte offset {} (right after the one before), found {}",
           file_, pointers_at() + 8 * i, i, at, p);
    at = checked_add(at, static_cast<uint64_t>(n) * width, file_);
    if (at > bin_bytes)
      fail(ErrorKind::kData, "{}: offset {}: sequence {} ends at byte {} of a .bin that has {}", file_,
           lengths_at() + 4 * i, i, at, bin_bytes);
  }
  if (at != bin_bytes)
    fail(ErrorKind::kData,
         "{}: its sequences hold {} bytes, but the .bin has {}. One of the two belongs to another dataset",
         file_, at, bin_bytes);
  int64_t before = 0;
  for (uint64_t j = 0; j < bounds_; ++j) {
    const int64_t bound = first_sequence(j);
    const bool good = j == 0 ? bound == 0 : bound >= before && static_cast<uint64_t>(bound) <= sequences_;
    if (!good)
      fail(ErrorKind::kData, "{}: offset {}: document bound {}: expected {}, found {}", file_,
           bounds_at() + 8 * j, j, j == 0 ? std::string("0") : fmt::format("{} to {}", before, sequences_),
           bound);
    before = bound;
  }
  if (static_cast<uint64_t>(before) != sequences_)
    fail(ErrorKind::kData,
         "{}: offset {}: the last document bound must be the number of sequences, {}, found {}", file_,
         bounds_at() + 8 * (bounds_ - 1), sequences_, before);
}

uint64_t TokenIndex::first_token(uint64_t sequence, uint64_t total_tokens) const {
  if (sequence == sequences_) return total_tokens;
  const int64_t p = pointer(sequence);
  const auto width = static_cast<int64_t>(token_bytes(type_));
  if (p < 0 || p % width != 0 || static_cast<uint64_t>(p / width) > total_tokens)
    fail(ErrorKind::kData,
         "{}: offset {}: sequence {}: expected a byte offset of a whole token within {} bytes, found {}",
         file_, pointers_at() + 8 * sequence, sequence, total_tokens * static_cast<uint64_t>(width), p);
  return static_cast<uint64_t>(p / width);
}

uint64_t TokenIndex::document_start(uint64_t document, uint64_t total_tokens) const {
  const int64_t sequence = first_sequence(document);
  if (sequence < 0 || static_cast<uint64_t>(sequence) > sequences_)
    fail(ErrorKind::kData, "{}: offset {}: document bound {}: expected 0 to {}, found {}", file_,
         bounds_at() + 8 * document, document, sequences_, sequence);
  return first_token(static_cast<uint64_t>(sequence), total_tokens);
}

uint64_t TokenIndex::document_of(uint64_t token, uint64_t total_tokens) const {
  STOKER_CHECK(documents() > 0);
  uint64_t low = 0, high = documents();
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    (document_start(middle, total_tokens) <= token ? low : high) = middle;
  }
  return low;
}

void write_token_index(HashedFile& out, TokenType type, uint64_t documents,
                       const std::function<void(const std::function<void(int32_t)>&)>& each_length) {
  out.append(kIndexMagic, sizeof kIndexMagic);
  out.put(uint64_t{1});
  out.put(static_cast<uint8_t>(type));
  out.put(documents);
  out.put(documents + 1);
  each_length([&](int32_t tokens) { out.put(tokens); });
  int64_t pointer = 0;
  each_length([&](int32_t tokens) {
    out.put(pointer);
    pointer += int64_t{tokens} * static_cast<int64_t>(token_bytes(type));
  });
  for (uint64_t bound = 0; bound <= documents; ++bound) out.put(static_cast<int64_t>(bound));
}

}  // namespace stoker::data
