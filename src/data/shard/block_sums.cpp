#include "data/shard/block_sums.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/hash.h"

namespace stoker::data {
namespace {
constexpr char kSumsMagic[8] = {'S', 'T', 'K', 'S', 'U', 'M', 'S', 0};
constexpr uint64_t kSumsHeaderBytes = 32, kLargestBlock = uint64_t{1} << 30;
}  // namespace

BlockSums BlockSums::parse(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.size() < kSumsHeaderBytes || std::memcmp(bytes.data(), kSumsMagic, sizeof kSumsMagic) != 0)
    fail(ErrorKind::kData,
         "{}: offset 0: expected the magic \"STKSUMS\\0\" of block sums, found other bytes or fewer than {}",
         file, kSumsHeaderBytes);
  BlockSums out;
  uint64_t version;
  std::memcpy(&version, bytes.data() + 8, 8);
  std::memcpy(&out.block_bytes, bytes.data() + 16, 8);
  std::memcpy(&out.file_bytes, bytes.data() + 24, 8);
  if (version != 1) fail(ErrorKind::kData, "{}: offset 8: expected version 1, found {}", file, version);
  if (out.block_bytes == 0 || out.block_bytes > kLargestBlock)
    fail(ErrorKind::kData, "{}: offset 16: expected blocks of 1 to {} bytes, found {}", file, kLargestBlock,
         out.block_bytes);
  const uint64_t blocks = out.file_bytes / out.block_bytes + (out.file_bytes % out.block_bytes != 0);
  const uint64_t expected = checked_add(kSumsHeaderBytes, checked_mul<uint64_t>(8, blocks, file), file);
  if (bytes.size() != expected)
    fail(ErrorKind::kData,
         "{}: offset 24: {} blocks need a file of {} bytes, found {}. It was cut short or overwritten", file,
         blocks, expected, bytes.size());
  out.sums.resize(blocks);
  if (blocks) std::memcpy(out.sums.data(), bytes.data() + kSumsHeaderBytes, 8 * blocks);
  return out;
}

std::vector<std::byte> BlockSums::encode() const {
  std::vector<std::byte> out(kSumsHeaderBytes + 8 * sums.size());
  const uint64_t version = 1;
  std::memcpy(out.data(), kSumsMagic, sizeof kSumsMagic);
  std::memcpy(out.data() + 8, &version, 8);
  std::memcpy(out.data() + 16, &block_bytes, 8);
  std::memcpy(out.data() + 24, &file_bytes, 8);
  if (!sums.empty()) std::memcpy(out.data() + kSumsHeaderBytes, sums.data(), 8 * sums.size());
  return out;
}

uint64_t BlockSums::block_size(uint64_t block) const {
  STOKER_CHECK(block < sums.size(), "block {} of {}", block, sums.size());
  return std::min(block_bytes, file_bytes - block * block_bytes);
}

bool BlockSums::matches(uint64_t block, std::span<const std::byte> bytes) const {
  return bytes.size() == block_size(block) && hash64(bytes.data(), bytes.size()) == sums[block];
}

void BlockSummer::update(std::span<const std::byte> bytes) {
  out_.file_bytes += bytes.size();
  while (!bytes.empty()) {
    if (pending_.empty() && bytes.size() >= kSumBlockBytes) {
      out_.sums.push_back(hash64(bytes.data(), kSumBlockBytes));
      bytes = bytes.subspan(kSumBlockBytes);
      continue;
    }
    const size_t take = std::min<size_t>(bytes.size(), kSumBlockBytes - pending_.size());
    pending_.insert(pending_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(take));
    bytes = bytes.subspan(take);
    if (pending_.size() == kSumBlockBytes) {
      out_.sums.push_back(hash64(pending_.data(), pending_.size()));
      pending_.clear();
    }
  }
}

BlockSums BlockSummer::finish() {
  if (!pending_.empty()) out_.sums.push_back(hash64(pending_.data(), pending_.size()));
  pending_.clear();
  return std::move(out_);
}

}  // namespace stoker::data
