// data/shard/block_sums.h
// One XXH3-64 per block of a .bin, so that a part of a shard fetched from afar can be verified on arrival.
//   0 magic "STKSUMS\0" | 8 u64 version 1 | 16 u64 block bytes | 24 u64 bytes of the .bin | 32 u64[blocks],
//   little-endian
// Errors        Data: names the file, the offset, what was expected and what was found
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace stoker::data {

inline constexpr uint64_t kSumBlockBytes = 256 * 1024;

struct BlockSums {
  uint64_t block_bytes = kSumBlockBytes;
  uint64_t file_bytes = 0;
  std::vector<uint64_t> sums;

  static BlockSums parse(std::span<const std::byte> bytes, const std::string& file);
  std::vector<std::byte> encode() const;
  uint64_t block_size(uint64_t block) const;  // the last one may be short
  bool matches(uint64_t block, std::span<const std::byte> bytes) const;
};

// Fed with a .bin as it is written, in pieces of any size.
class BlockSummer {
 public:
  void update(std::span<const std::byte> bytes);
  BlockSums finish();

 private:
  BlockSums out_;
  std::vector<std::byte> pending_;
};

}  // namespace stoker::data
