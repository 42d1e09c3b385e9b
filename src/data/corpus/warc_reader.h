// data/corpus/warc_reader.h
// WARC 0.17, 1.0, 1.1 (ISO 28500): the HTML or text bodies of `response` and `resource` records and the text of
// `conversion` records (WET); all other types are passed over.
// HTTP          status 200 only; chunked bodies are put together; gzip and deflate content encodings are unpacked up to
//               the record limit, others are a bad record; Content-Type says HTML or text, the rest is passed over; its
//               charset is the hint
// Bad           a header that is none, a length that is no number, a truncated record (the rest of the file is given up)
#pragma once
#include "data/corpus/factory_records.h"

namespace stoker::corpus {

class WarcReader : public RecordReader {
 public:
  WarcReader(ByteSource source, const RecordOptions& options);
  bool next(RawRecord& record) override;

 private:
  ByteReader in_;
  RecordOptions options_;
  uint64_t number_ = 0;
  bool finished_ = false;
};

// An HTTP/1.x response with its header -> record (kind, charset, bytes or bad). false: nothing to keep (not 200, or
// neither HTML nor text). For tests and fuzzing.
bool open_http_response(std::string_view message, uint64_t max_bytes, RawRecord& record);

}  // namespace stoker::corpus
