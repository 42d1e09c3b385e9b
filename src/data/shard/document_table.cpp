#include "data/shard/document_table.h"

#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "data/shard/hashed_file.h"

namespace stoker::data {
namespace {
constexpr char kTableMagic[8] = {'S', 'T', 'K', 'D', 'O', 'C', 'S', 0};
constexpr uint64_t kTableHeaderBytes = 24, kRecordBytes = 40;
}  // namespace

DocumentTable DocumentTable::parse(std::span<const std::byte> bytes, std::string file) {
  if (bytes.size() < kTableHeaderBytes || std::memcmp(bytes.data(), kTableMagic, sizeof kTableMagic) != 0)
    fail(ErrorKind::kData,
         "{}: offset 0: expected the magic \"STKDOCS\\0\" of a document table, found other bytes or fewer "
         "than {}",
         file, kTableHeaderBytes);
  uint64_t version, count;
  std::memcpy(&version, bytes.data() + 8, 8);
  std::memcpy(&count, bytes.data() + 16, 8);
  if (version != 1) fail(ErrorKind::kData, "{}: offset 8: expected version 1, found {}", file, version);
  const uint64_t expected = checked_add(kTableHeaderBytes, checked_mul(kRecordBytes, count, file), file);
  if (bytes.size() != expected)
    fail(ErrorKind::kData,
         "{}: offset 16: {} documents need a file of {} bytes, found {}. It was cut short or overwritten",
         file, count, expected, bytes.size());
  DocumentTable table;
  table.bytes_ = bytes;
  table.documents_ = count;
  return table;
}

DocumentOrigin DocumentTable::at(uint64_t document) const {
  STOKER_CHECK(document < documents_, "document {} of {}", document, documents_);
  const std::byte* p = bytes_.data() + kTableHeaderBytes + kRecordBytes * document;
  DocumentOrigin origin;
  std::memcpy(&origin.text_hash.high, p, 8);
  std::memcpy(&origin.text_hash.low, p + 8, 8);
  std::memcpy(&origin.text_bytes, p + 16, 8);
  std::memcpy(&origin.record, p + 24, 8);
  std::memcpy(&origin.source, p + 32, 4);
  return origin;
}

void put_document_table_head(HashedFile& out, uint64_t documents) {
  out.append(kTableMagic, sizeof kTableMagic);
  out.put(uint64_t{1});
  out.put(documents);
}

void put_document(HashedFile& out, const DocumentOrigin& document) {
  out.put(document.text_hash.high);
  out.put(document.text_hash.low);
  out.put(document.text_bytes);
  out.put(document.record);
  out.put(document.source);
  out.put(uint32_t{0});
}

}  // namespace stoker::data
