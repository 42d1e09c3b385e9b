#include "data/corpus/factory_records.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "data/corpus/csv_reader.h"
#include "data/corpus/tar_reader.h"
#include "data/corpus/warc_reader.h"

namespace stoker::corpus {
namespace {

class WholeReader : public RecordReader {
 public:
  WholeReader(ByteSource source, RecordKind kind, uint64_t max)
      : in_(std::move(source)), kind_(kind), max_(max) {}
  bool next(RawRecord& record) override {
    if (done_) return false;
    done_ = true;
    record = {};
    record.kind = kind_;
    char block[size_t{16} << 10];
    while (const size_t got = in_.read(block, sizeof block)) {
      if (record.bytes.size() + got > max_) {
        record.bad = fmt::format("longer than {} bytes", max_);
        record.bytes.clear();
        record.bytes.shrink_to_fit();
        return true;
      }
      record.bytes.append(block, got);
    }
    if (!in_.failure().empty()) {
      record.bytes.clear();
      record.bad = in_.failure();
    }
    return true;
  }

 private:
  ByteReader in_;
  RecordKind kind_;
  uint64_t max_;
  bool done_ = false;
};

class LineReader : public RecordReader {
 public:
  LineReader(ByteSource source, uint64_t max) : in_(std::move(source)), max_(max) {}
  bool next(RawRecord& record) override {
    record = {};
    record.kind = RecordKind::kJson;
    bool too_long = false;
    while (in_.line(record.bytes, max_, too_long)) {
      record.number = number_++;
      if (!in_.failure().empty()) break;  // the last line is cut
      if (too_long) {
        record.bytes.clear();
        record.bad = fmt::format("line longer than {} bytes", max_);
        return true;
      }
      if (record.bytes.find_first_not_of(" \t\r") != std::string::npos) return true;
    }
    if (in_.failure().empty() || told_) return false;
    told_ = true;
    record.bytes.clear();
    record.number = number_;
    record.bad = in_.failure();
    return true;
  }

 private:
  ByteReader in_;
  uint64_t max_, number_ = 0;
  bool told_ = false;
};

}  // namespace

bool ByteReader::refill() {
  if (ended_) return false;
  try {
    if (size_ < kBuffer && (!buffer_ || end_ == size_)) {
      size_ = buffer_ ? kBuffer : kFirst;
      buffer_.reset(new char[size_]);
    }
    at_ = end_ = 0;
    end_ = source_(buffer_.get(), size_);
  } catch (const Error& e) {
    // A full disk or a stop request is no property of the data.
    if (e.kind() == ErrorKind::kStorage || e.kind() == ErrorKind::kCancelled) throw;
    failure_ = e.what();
    end_ = 0;
  }
  ended_ = end_ == 0;
  return end_ > 0;
}

size_t ByteReader::read(char* to, size_t bytes) {
  size_t done = 0;
  while (done < bytes && (at_ < end_ || refill())) {
    const size_t n = std::min(bytes - done, end_ - at_);
    std::memcpy(to + done, buffer_.get() + at_, n);
    at_ += n;
    done += n;
  }
  return done;
}

uint64_t ByteReader::skip(uint64_t bytes) {
  uint64_t done = 0;
  while (done < bytes && (at_ < end_ || refill())) {
    const uint64_t n = std::min<uint64_t>(bytes - done, end_ - at_);
    at_ += n;
    done += n;
  }
  return done;
}

bool ByteReader::line(std::string& out, uint64_t max, bool& too_long) {
  out.clear();
  too_long = false;
  bool any = false;
  while (at_ < end_ || refill()) {
    any = true;
    const char* const from = buffer_.get() + at_;
    const auto* newline = static_cast<const char*>(std::memchr(from, '\n', end_ - at_));
    const size_t n = newline ? static_cast<size_t>(newline - from) : end_ - at_;
    if (!too_long) {
      if (out.size() + n > max) {
        too_long = true;
        std::string().swap(out);
      } else {
        out.append(from, n);
      }
    }
    at_ += n + (newline ? 1 : 0);
    if (newline) return true;
  }
  return any;
}

int ByteReader::peek() {
  if (at_ >= end_ && !refill()) return -1;
  return static_cast<unsigned char>(buffer_[at_]);
}

std::unique_ptr<RecordReader> make_record_reader(std::string_view format, ByteSource source,
                                                 const RecordOptions& options) {
  if (format == "text")
    return std::make_unique<WholeReader>(std::move(source), RecordKind::kText, options.max_record_bytes);
  if (format == "html")
    return std::make_unique<WholeReader>(std::move(source), RecordKind::kHtml, options.max_record_bytes);
  if (format == "jsonl") return std::make_unique<LineReader>(std::move(source), options.max_record_bytes);
  if (format == "csv") return std::make_unique<CsvReader>(std::move(source), options);
  if (format == "warc") return std::make_unique<WarcReader>(std::move(source), options);
  if (format == "tar") return std::make_unique<TarReader>(std::move(source), options);
  if (format == "parquet") fail(ErrorKind::kUsage, "Parquet is read from a file, not from a stream");
  fail(ErrorKind::kUsage,
       "unknown source format '{}': expected auto, text, html, jsonl, csv, warc, tar or parquet", format);
}

std::string record_format_of_name(std::string_view name) {
  for (const std::string_view packed : {".gz", ".zst", ".xz"})
    if (name.ends_with(packed)) {
      name.remove_suffix(packed.size());
      break;
    }
  static constexpr std::pair<std::string_view, std::string_view> kEndings[] = {
      {".txt", "text"},       {".text", "text"},    {".md", "text"},  {".markdown", "text"},
      {".rst", "text"},       {".html", "html"},    {".htm", "html"}, {".xhtml", "html"},
      {".jsonl", "jsonl"},    {".ndjson", "jsonl"}, {".csv", "csv"},  {".tsv", "csv"},
      {".warc", "warc"},      {".wet", "warc"},     {".tar", "tar"},  {".tgz", "tar"},
      {".parquet", "parquet"}};
  for (const auto& [ending, format] : kEndings)
    if (name.size() > ending.size() && name.ends_with(ending)) return std::string(format);
  return {};
}

}  // namespace stoker::corpus
