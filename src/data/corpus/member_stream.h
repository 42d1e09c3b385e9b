// data/corpus/member_stream.h
// Files that hold many documents: tar (WebDataset) and MosaicML MDS shards, read front to back from a byte stream. Nothing is ever
// unpacked to disk: member names are labels only, so a hostile "../../x" is harmless. Pickled columns are refused, never decoded.
//   tar   ustar, GNU long names, pax paths and sizes; regular members whose name ends in the wanted extension
//   MDS   version 2: u32 N | u32 offset[N+1] | configuration (JSON) up to offset[0] | samples; the wanted column must be str or bytes
// Memory        one member (at most max_member_bytes; longer ones are reported and skipped); MDS: 4 bytes per sample
// Errors        Data: what is wrong and where; the stream cannot go on after it
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace stoker::corpus {

struct Member {
  uint64_t number = 0;  // in the file, counting all that could be documents
  std::string bytes;
  uint64_t too_long = 0;  // not 0: it has that many bytes, more than the limit, and `bytes` is empty
};

class MemberStream {
 public:
  // Fills the buffer with up to n bytes; fewer only at the end.
  using Read = std::function<size_t(char* to, size_t n)>;
  virtual ~MemberStream() = default;
  virtual bool next(Member& member) = 0;  // false at the end
};

// extension: without its dot.
std::unique_ptr<MemberStream> open_tar(MemberStream::Read read, std::string extension,
                                       uint64_t max_member_bytes);
std::unique_ptr<MemberStream> open_mds(MemberStream::Read read, std::string column,
                                       uint64_t max_member_bytes);

}  // namespace stoker::corpus
