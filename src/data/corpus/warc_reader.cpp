#include "data/corpus/warc_reader.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <span>

#include "base/error.h"
#include "data/corpus/ascii.h"

namespace stoker::corpus {
namespace {

std::string lowered(std::string_view s) {
  std::string out(s);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

std::optional<uint64_t> number(std::string_view s, int base = 10) {
  uint64_t value = 0;
  const auto result = std::from_chars(s.data(), s.data() + s.size(), value, base);
  if (s.empty() || result.ec != std::errc() || result.ptr != s.data() + s.size()) return std::nullopt;
  return value;
}

// HTML, text or neither; the charset goes into record.
std::optional<RecordKind> kind_of(std::string_view content_type, std::string& charset) {
  const std::string type = lowered(content_type);
  if (const size_t at = type.find("charset="); at != std::string::npos) {
    std::string_view value = std::string_view(content_type).substr(at + 8);
    value = value.substr(0, value.find_first_of("; \t"));
    while (!value.empty() && (value.front() == '"' || value.front() == '\'')) value.remove_prefix(1);
    while (!value.empty() && (value.back() == '"' || value.back() == '\'')) value.remove_suffix(1);
    charset = value;
  }
  if (type.starts_with("text/html") || type.starts_with("application/xhtml")) return RecordKind::kHtml;
  if (type.starts_with("text/plain") || type.starts_with("text/markdown")) return RecordKind::kText;
  return std::nullopt;
}

// false: the chunk lengths make no sense.
bool join_chunks(std::string_view body, std::string& out) {
  for (;;) {
    const size_t end = body.find('\n');
    if (end == std::string_view::npos) return false;
    std::string_view length = ascii_trimmed(body.substr(0, end));
    length = ascii_trimmed(length.substr(0, length.find(';')));
    const auto bytes = number(length, 16);
    body.remove_prefix(end + 1);
    if (!bytes) return false;
    if (*bytes == 0) return true;
    if (*bytes > body.size()) return false;
    out.append(body.substr(0, *bytes));
    body.remove_prefix(*bytes);
    if (body.starts_with("\r\n")) body.remove_prefix(2);
    else if (body.starts_with("\n")) body.remove_prefix(1);
    else return false;
  }
}

std::string inflate_body(std::string_view body, bool gzip, uint64_t max, std::string& bad) {
  std::string out;
  // deflate means zlib by the standard, and bare deflate on many servers.
  constexpr int kGzip[] = {15 + 16}, kDeflate[] = {15, -15};
  for (const int bits : gzip ? std::span<const int>(kGzip) : std::span<const int>(kDeflate)) {
    z_stream stream{};
    if (inflateInit2(&stream, bits) != Z_OK) break;
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(body.data()));
    stream.avail_in = static_cast<uInt>(std::min<size_t>(body.size(), UINT32_MAX));
    out.clear();
    bad.clear();
    std::string block(65536, '\0');
    int status = Z_OK;
    while (status == Z_OK) {
      stream.next_out = reinterpret_cast<Bytef*>(block.data());
      stream.avail_out = static_cast<uInt>(block.size());
      status = inflate(&stream, Z_NO_FLUSH);
      out.append(block, 0, block.size() - stream.avail_out);
      if (out.size() > max) {
        bad = fmt::format("unpacked body longer than {} bytes", max);
        break;
      }
    }
    inflateEnd(&stream);
    if (status == Z_STREAM_END || !bad.empty()) break;
    bad = "body is truncated or corrupt compressed data";
  }
  if (!bad.empty()) out.clear();
  return out;
}

}  // namespace

bool open_http_response(std::string_view message, uint64_t max_bytes, RawRecord& record) {
  size_t at = message.find('\n');
  const std::string_view status_line = ascii_trimmed(message.substr(0, at));
  if (!status_line.starts_with("HTTP/") || at == std::string_view::npos) {
    record.bad = "no HTTP status line in a response record";
    return true;
  }
  const size_t blank = status_line.find(' ');
  if (blank == std::string_view::npos || ascii_trimmed(status_line.substr(blank)).substr(0, 3) != "200")
    return false;
  std::string content_type, encoding, transfer;
  size_t begin = at + 1;
  for (;;) {
    at = message.find('\n', begin);
    if (at == std::string_view::npos) {
      record.bad = "an HTTP header without an end";
      return true;
    }
    const std::string_view line = ascii_trimmed(message.substr(begin, at - begin));
    begin = at + 1;
    if (line.empty()) break;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string name = lowered(ascii_trimmed(line.substr(0, colon)));
    const std::string_view value = ascii_trimmed(line.substr(colon + 1));
    if (name == "content-type") content_type = value;
    else if (name == "content-encoding") encoding = lowered(value);
    else if (name == "transfer-encoding") transfer = lowered(value);
  }
  const auto kind = kind_of(content_type, record.charset);
  if (!kind) return false;
  record.kind = *kind;
  std::string_view body = message.substr(begin);
  std::string joined;
  // Some archives keep the header but store the body already joined or unpacked: believe the bytes.
  if (transfer.find("chunked") != std::string::npos && join_chunks(body, joined)) body = joined;
  const bool gzipped = body.starts_with("\x1f\x8b");
  if (gzipped || encoding == "deflate") {
    std::string unpacked = inflate_body(body, gzipped, max_bytes, record.bad);
    if (record.bad.empty()) record.bytes = std::move(unpacked);
    return true;
  }
  if (encoding == "br" || encoding == "zstd" || encoding == "compress") {
    record.bad = "content encoding " + encoding + " is not unpacked";
    return true;
  }
  record.bytes = body;
  return true;
}

WarcReader::WarcReader(ByteSource source, const RecordOptions& options)
    : in_(std::move(source)), options_(options) {}

bool WarcReader::next(RawRecord& record) {
  std::string line;
  bool too_long = false;
  auto give_up = [&](std::string why) {
    finished_ = true;
    record.bytes.clear();
    record.bad = in_.failure().empty() ? std::move(why) : in_.failure();
    return true;
  };
  while (!finished_) {
    record = {};
    record.number = number_;
    // Blank lines end the record before.
    do {
      if (!in_.line(line, 4096, too_long)) {
        finished_ = true;
        if (in_.failure().empty()) return false;
        return give_up("");
      }
    } while (!too_long && ascii_trimmed(line).empty());
    if (too_long || !line.starts_with("WARC/"))
      return give_up("expected a line 'WARC/1.0' at a record's start: not a WARC file, or damaged");
    ++number_;
    std::string type, content_type, url;
    std::optional<uint64_t> length;
    for (;;) {
      if (!in_.line(line, 65536, too_long)) return give_up("the file ends inside a record's header");
      if (too_long) return give_up("a header line longer than 64 KiB");
      const std::string_view header = ascii_trimmed(line);
      if (header.empty()) break;
      const size_t colon = header.find(':');
      if (colon == std::string_view::npos) continue;
      const std::string name = lowered(ascii_trimmed(header.substr(0, colon)));
      const std::string_view value = ascii_trimmed(header.substr(colon + 1));
      if (name == "warc-type") type = lowered(value);
      else if (name == "content-length") length = number(value);
      else if (name == "content-type") content_type = value;
      else if (name == "warc-target-uri") url = value;
    }
    if (!length) return give_up("a record without a Content-Length");
    if (url.size() > 1 && url.front() == '<' && url.back() == '>') url = url.substr(1, url.size() - 2);
    record.name = url;
    const bool wanted = type == "response" || type == "resource" || type == "conversion";
    if (!wanted || *length > options_.max_record_bytes) {
      if (in_.skip(*length) != *length) return give_up("the file ends inside a record");
      if (!wanted) continue;
      record.bad = fmt::format("record of {} bytes, longer than {}", *length, options_.max_record_bytes);
      return true;
    }
    std::string body;
    // Grown as bytes arrive: a length that lies must not reserve memory.
    while (body.size() < *length) {
      const size_t piece = static_cast<size_t>(std::min<uint64_t>(*length - body.size(), 1 << 20));
      const size_t old = body.size();
      body.resize(old + piece);
      const size_t got = in_.read(body.data() + old, piece);
      body.resize(old + got);
      if (got < piece) return give_up("the file ends inside a record");
    }
    if (type == "response" && lowered(content_type).find("application/http") != std::string::npos) {
      if (open_http_response(body, options_.max_record_bytes, record)) return true;
      continue;
    }
    const auto kind = kind_of(content_type, record.charset);
    if (!kind) continue;
    record.kind = *kind;
    record.bytes = std::move(body);
    return true;
  }
  return false;
}

}  // namespace stoker::corpus
