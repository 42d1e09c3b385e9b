#include "data/shard/token_file.h"

#include <algorithm>
#include <array>

#include <cstring>
#include <limits>

#include "base/checked.h"
#include "base/error.h"
#include "data/shard/hashed_file.h"

namespace stoker::data {
namespace {
constexpr size_t kBufferBytes = size_t{1} << 20;
}

ShardWriter::ShardWriter(io::FileSystem& fs, std::string directory, std::string name, TokenType type)
    : fs_(fs),
      directory_(std::move(directory)),
      name_(std::move(name)),
      type_(type),
      documents_(fs, io::join(directory_, name_ + ".docs")) {
  bin_ = fs_.create(io::join(directory_, name_ + ".bin"));
  buffer_.reserve(kBufferBytes + 64);
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::add(std::span<const int32_t> tokens, const DocumentOrigin& origin) {
  documents_.push_back({origin, checked_cast<int32_t>(tokens.size(), "tokens of one document")});
  const bool narrow = type_ == TokenType::kUint16;
  const int32_t limit = narrow ? std::numeric_limits<uint16_t>::max() : std::numeric_limits<int32_t>::max();
  for (const int32_t token : tokens) {
    STOKER_CHECK(token >= 0 && token <= limit, "token {} does not fit in {}", token, to_string(type_));
    if (buffer_.size() + 4 > kBufferBytes) flush();
    const size_t at = buffer_.size();
    if (narrow) {
      const auto value = static_cast<uint16_t>(token);
      buffer_.resize(at + 2);
      std::memcpy(buffer_.data() + at, &value, 2);
    } else {
      buffer_.resize(at + 4);
      std::memcpy(buffer_.data() + at, &token, 4);
    }
  }
  tokens_ += tokens.size();
  text_bytes_ += origin.text_bytes;
}

void ShardWriter::flush() {
  if (buffer_.empty()) return;
  bin_->append(buffer_.data(), buffer_.size());
  hasher_.update(buffer_.data(), buffer_.size());
  summer_.update(buffer_);
  buffer_.clear();
}

template <typename Fill>
FileRecord ShardWriter::write_beside(const std::string& extension, Fill&& fill) {
  const auto file = fs_.create(io::join(directory_, name_ + extension));
  HashedFile out(*file);
  fill(out);
  FileRecord record = out.finish(name_ + extension);
  file->sync();
  file->close();
  return record;
}

ShardRecord ShardWriter::finish() {
  flush();
  bin_->sync();
  bin_->close();
  ShardRecord record;
  record.documents = documents_.size();
  record.tokens = tokens_;
  record.text_bytes = text_bytes_;
  record.bin = {name_ + ".bin", tokens_ * token_bytes(type_), hasher_.digest()};
  record.idx = write_beside(".idx", [&](HashedFile& out) {
    write_token_index(out, type_, documents_.size(), [&](const std::function<void(int32_t)>& each) {
      documents_.for_each([&](const Document& d) { each(d.tokens); });
    });
  });
  record.docs = write_beside(".docs", [&](HashedFile& out) {
    put_document_table_head(out, documents_.size());
    documents_.for_each([&](const Document& d) { put_document(out, d.origin); });
  });
  record.sums = write_beside(".sums", [&](HashedFile& out) {
    const auto sums = summer_.finish().encode();
    out.append(sums.data(), sums.size());
  });
  return record;
}

TokenFile::TokenFile(io::FileSystem& fs, const std::string& bin_path, const std::string& idx_path)
    : bin_(fs.open_read(bin_path, io::Access::kRandom)),
      idx_(fs.open_read(idx_path, io::Access::kRandom)),
      index_(TokenIndex::parse(idx_->map(), idx_path)) {
  const uint64_t width = token_bytes(index_.token_type());
  tokens_ = bin_->size() / width;
  const uint64_t n = index_.sequences();
  const uint64_t end =
      n == 0
          ? 0
          : checked_add(checked_cast<uint64_t>(index_.pointer(n - 1), idx_path),
                        checked_mul(checked_cast<uint64_t>(index_.length(n - 1), idx_path), width, idx_path),
                        idx_path);
  if (end != bin_->size())
    fail(ErrorKind::kData,
         "{}: its index ({}) says it ends at byte {}, found a file of {} bytes. It was cut short or "
         "overwritten",
         bin_path, idx_path, end, bin_->size());
}

void TokenFile::read(uint64_t first, std::span<int32_t> out) const {
  STOKER_CHECK(first <= tokens_ && out.size() <= tokens_ - first, "tokens {}+{} of {}", first, out.size(),
               tokens_);
  const TokenType type = index_.token_type();
  const uint64_t width = token_bytes(type);
  if (type == TokenType::kInt32) {
    bin_->read_at(first * width, out.data(), out.size_bytes());
    return;
  }
  std::array<std::byte, 8192> buffer;
  for (size_t done = 0; done < out.size();) {
    const size_t n = std::min(out.size() - done, buffer.size() / width);
    bin_->read_at((first + done) * width, buffer.data(), n * width);
    widen_tokens(type, buffer.data(), out.subspan(done, n));
    done += n;
  }
}

uint64_t TokenFile::sequence_of(uint64_t token) const {
  STOKER_CHECK(token < tokens_, "token {} of {}", token, tokens_);
  uint64_t low = 0, high = index_.sequences();  // first_token(low) <= token < first_token(high)
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    (first_token(middle) <= token ? low : high) = middle;
  }
  return low;
}

void widen_tokens(TokenType type, const std::byte* from, std::span<int32_t> out) {
  if (type == TokenType::kInt32) {
    if (!out.empty()) std::memcpy(out.data(), from, out.size() * 4);
    return;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t value;
    std::memcpy(&value, from + 2 * i, 2);
    out[i] = value;
  }
}

}  // namespace stoker::data
