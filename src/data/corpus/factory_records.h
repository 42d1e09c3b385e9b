// data/corpus/factory_records.h
// A stream of bytes -> records, one at a time, with bounded memory and whatever the bytes.
//   text, html   the whole stream is one record          jsonl  a line is a record (parsed later, by open_record)
//   csv          a row is a record (csv_reader.h)         warc   a response or conversion is one (warc_reader.h)
//   tar          a member is one (tar_reader.h)
// Bad records   next() gives them with `bad` set and the reason, and goes on where that is safe; a stream that breaks
//               (truncated, corrupt) ends with one bad record that says so. An Error thrown by the byte source is
//               turned into one, too, except Storage and Cancelled
// Memory        max_record_bytes + 1 MiB; a longer record is skipped without being held
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::corpus {

enum class RecordKind : uint8_t { kText, kHtml, kJson };

struct RawRecord {
  uint64_t number = 0;  // of the record in its file: line, row, WARC record or member, 0-based
  RecordKind kind = RecordKind::kText;
  std::string name;     // URL, member name; empty for most
  std::string charset;  // a hint from outside the text
  std::string bytes;
  std::string bad;  // not empty: why there is no content
};

// Fills up to `bytes` bytes, fewer only before the end, 0 at the end; may throw Error.
using ByteSource = std::function<size_t(char* to, size_t bytes)>;

struct RecordOptions {
  uint64_t max_record_bytes = uint64_t{64} << 20;
  std::string text_field = "text";  // column of a CSV; field of a JSON object (used by open_record)
  char delimiter = 0;               // of a CSV; 0: found from the header
};

class RecordReader {
 public:
  virtual ~RecordReader() = default;
  // false: that was all.
  virtual bool next(RawRecord& record) = 0;
};

// format: text, html, jsonl, csv, warc, tar. Usage error that lists them otherwise.
std::unique_ptr<RecordReader> make_record_reader(std::string_view format, ByteSource source,
                                                 const RecordOptions& options);
// By a file's name without .gz .zst .xz; empty when it says nothing.
std::string record_format_of_name(std::string_view name);

// A ByteSource with look-ahead; the base of all readers.
class ByteReader {
 public:
  explicit ByteReader(ByteSource source) : source_(std::move(source)) {}
  // At most `bytes`; fewer only at the end.
  size_t read(char* to, size_t bytes);
  // Skips up to `bytes`; how many there were.
  uint64_t skip(uint64_t bytes);
  // A line without its LF into out, at most max bytes of it (the rest is read and dropped; too_long is then set).
  // false at the end of the stream.
  bool line(std::string& out, uint64_t max, bool& too_long);
  int peek();  // -1 at the end
  bool at_end() { return peek() < 0; }
  // The stream broke: what the source threw. Reading then behaves as at the end.
  const std::string& failure() const { return failure_; }

 private:
  static constexpr size_t kFirst = size_t{16} << 10, kBuffer = size_t{256} << 10;
  bool refill();
  ByteSource source_;
  // Small at first and not cleared: most sources of a build are small files.
  std::unique_ptr<char[]> buffer_;
  size_t size_ = 0, at_ = 0, end_ = 0;
  bool ended_ = false;
  std::string failure_;
};

}  // namespace stoker::corpus
