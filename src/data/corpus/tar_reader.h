// data/corpus/tar_reader.h
// POSIX ustar, pax and GNU tar as a stream of members; WebDataset is a tar whose members .txt, .html, .md, .json hold the
// text. Nothing is ever written to disk, so hostile names cannot harm; they are still refused, because a name goes into
// the lineage: absolute paths and ".." are a bad record. Links, devices and folders are passed over.
// Kind          by the member's name: .html .htm; .json (a JSON object); .txt .text .md .rst; others are passed over
// Bad           header checksum or size wrong, truncated (the rest is given up); member above the limit (passed over)
#pragma once
#include <cstdint>

#include "data/corpus/factory_records.h"

namespace stoker::corpus {

inline constexpr uint64_t kTarBlock = 512;  // headers and data are padded to it

class TarReader : public RecordReader {
 public:
  TarReader(ByteSource source, const RecordOptions& options);
  bool next(RawRecord& record) override;

 private:
  bool read_all(std::string& out, uint64_t bytes);  // with the padding; false: the file ends before
  ByteReader in_;
  RecordOptions options_;
  uint64_t number_ = 0;
  bool finished_ = false;
};

}  // namespace stoker::corpus
