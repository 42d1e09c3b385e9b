// data/shard/document_table.h
// Lineage: for each document of a shard, in shard order, which source record it came from and the hash of its
// raw text.
//   0 magic "STKDOCS\0" | 8 u64 version 1 | 16 u64 count | 24 count records of 40 bytes, little-endian:
//   u64 hash high | u64 hash low | u64 text bytes | u64 record (0-based: line of a JSON lines file, 0 for a
//   whole file) | u32 source (0-based line of the manifest's sources file) | u32 zero
// Cost          parse is O(1); at() is one copy
// Errors        Data: names the file, the offset, what was expected and what was found
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/hash.h"

namespace stoker::data {

class HashedFile;

struct DocumentOrigin {
  Hash128 text_hash;
  uint64_t text_bytes = 0;
  uint64_t record = 0;
  uint32_t source = 0;
  bool operator==(const DocumentOrigin&) const = default;
};

class DocumentTable {
 public:
  static DocumentTable parse(std::span<const std::byte> bytes, std::string file);
  uint64_t documents() const { return documents_; }
  DocumentOrigin at(uint64_t document) const;  // < documents(), else Internal

 private:
  std::span<const std::byte> bytes_;
  uint64_t documents_ = 0;
};

// How a table is written: its head, then its documents one after another.
void put_document_table_head(HashedFile& out, uint64_t documents);
void put_document(HashedFile& out, const DocumentOrigin& document);

}  // namespace stoker::data
