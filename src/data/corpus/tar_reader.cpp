#include "data/corpus/tar_reader.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "base/error.h"

namespace stoker::corpus {
namespace {

constexpr uint64_t kMaxExtendedHeader = uint64_t{1} << 20;

std::string_view field(const std::array<char, kTarBlock>& header, size_t at, size_t size) {
  const char* const begin = header.data() + at;
  return {begin, strnlen(begin, size)};
}

// Octal, or GNU's base-256 with the top bit set.
std::optional<uint64_t> number(const std::array<char, kTarBlock>& header, size_t at, size_t size) {
  const auto first = static_cast<unsigned char>(header[at]);
  uint64_t value = 0;
  if (first & 0x80) {
    if (first != 0x80) return std::nullopt;  // negative, or beyond 64 bits
    for (size_t i = 1; i < size; ++i) {
      if (value >> 55) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(header[at + i]);
    }
    return value;
  }
  bool any = false, ended = false;
  for (const char c : field(header, at, size)) {
    if (c == ' ') {
      ended = any;
      continue;
    }
    if (c < '0' || c > '7' || ended || value >> 60) return std::nullopt;
    value = value << 3 | static_cast<uint64_t>(c - '0');
    any = true;
  }
  return value;
}

bool checksum_fits(const std::array<char, kTarBlock>& header) {
  const auto stored = number(header, 148, 8);
  if (!stored) return false;
  uint64_t sum = 0;
  for (size_t i = 0; i < kTarBlock; ++i)
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(header[i]);
  return sum == *stored;
}

// "path" and "size" of a pax extended header: lines "<length> <key>=<value>\n".
bool read_pax(std::string_view pax, std::string& path, std::optional<uint64_t>& size) {
  while (!pax.empty()) {
    uint64_t length = 0;
    const auto parsed = std::from_chars(pax.data(), pax.data() + pax.size(), length);
    const auto digits = static_cast<size_t>(parsed.ptr - pax.data());
    if (parsed.ec != std::errc() || length <= digits + 1 || length > pax.size() || pax[digits] != ' ' ||
        pax[length - 1] != '\n')
      return false;
    const std::string_view entry = pax.substr(digits + 1, length - digits - 2);
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos) return false;
    const std::string_view key = entry.substr(0, equals), value = entry.substr(equals + 1);
    if (key == "path") path = value;
    if (key == "size") {
      uint64_t bytes = 0;
      const auto done = std::from_chars(value.data(), value.data() + value.size(), bytes);
      if (done.ec != std::errc() || done.ptr != value.data() + value.size()) return false;
      size = bytes;
    }
    pax.remove_prefix(length);
  }
  return true;
}

bool hostile(std::string_view name) {
  if (name.empty() || name.front() == '/' || name.find('\0') != std::string_view::npos ||
      name.find('\\') != std::string_view::npos)
    return true;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    if (name.substr(at, end - at) == "..") return true;
    at = end + 1;
  }
  return false;
}

std::optional<RecordKind> kind_of_member(std::string_view name) {
  std::string low(name);
  std::transform(low.begin(), low.end(), low.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (low.ends_with(".json")) return RecordKind::kJson;
  const std::string format = record_format_of_name(low);
  if (low.ends_with(".gz") || low.ends_with(".zst") || low.ends_with(".xz")) return std::nullopt;
  if (format == "html") return RecordKind::kHtml;
  if (format == "text") return RecordKind::kText;
  return std::nullopt;
}

}  // namespace

TarReader::TarReader(ByteSource source, const RecordOptions& options)
    : in_(std::move(source)), options_(options) {}

bool TarReader::read_all(std::string& out, uint64_t bytes) {
  out.clear();
  while (out.size() < bytes) {
    const auto piece = static_cast<size_t>(std::min<uint64_t>(bytes - out.size(), 1 << 20));
    const size_t old = out.size();
    out.resize(old + piece);
    const size_t got = in_.read(out.data() + old, piece);
    out.resize(old + got);
    if (got < piece) return false;
  }
  const uint64_t padding = (kTarBlock - bytes % kTarBlock) % kTarBlock;
  in_.skip(padding);  // a missing last padding harms nobody
  return true;
}

bool TarReader::next(RawRecord& record) {
  std::string long_name, extended;
  std::optional<uint64_t> long_size;
  auto give_up = [&](std::string why) {
    finished_ = true;
    record.bytes.clear();
    record.bad = in_.failure().empty() ? std::move(why) : in_.failure();
    return true;
  };
  while (!finished_) {
    record = {};
    record.number = number_;
    std::array<char, kTarBlock> header;
    const size_t got = in_.read(header.data(), kTarBlock);
    if (got == 0 && in_.failure().empty()) break;
    if (got < kTarBlock) return give_up("the archive ends inside a header");
    if (std::all_of(header.begin(), header.end(), [](char c) { return c == 0; })) break;  // end of archive
    if (!checksum_fits(header)) return give_up("a header's checksum is wrong: not a tar file, or damaged");
    auto size = number(header, 124, 12);
    const char type = header[156];
    if (!size) return give_up("a member's size is no number");
    if (type == 'x' || type == 'L') {
      if (*size > kMaxExtendedHeader) return give_up("an extended header above 1 MiB");
      if (!read_all(extended, *size)) return give_up("the archive ends inside an extended header");
      if (type == 'L') long_name = extended.substr(0, extended.find('\0'));
      else if (!read_pax(extended, long_name, long_size)) return give_up("a pax header that cannot be read");
      continue;
    }
    if (long_size) size = long_size;
    std::string name = std::move(long_name);
    long_name.clear();
    long_size.reset();
    if (name.empty()) {
      name = field(header, 0, 100);
      const std::string_view prefix = field(header, 345, 155);
      if (field(header, 257, 5) == "ustar" && !prefix.empty()) name = std::string(prefix) + "/" + name;
    }
    const bool regular = type == '0' || type == 0;
    record.number = number_;
    const auto pass_over = [&] {
      const uint64_t padded = *size + (kTarBlock - *size % kTarBlock) % kTarBlock;
      return padded >= *size && in_.skip(padded) >= *size;
    };
    if (!regular) {
      // Links and devices have no content whatever their size says; everything else is skipped by it.
      if (type >= '1' && type <= '6') continue;
      if (!pass_over()) return give_up("the archive ends inside a member");
      continue;
    }
    ++number_;
    if (hostile(name)) {
      if (!pass_over()) return give_up("the archive ends inside a member");
      record.bad = "member name leads outside the archive";
      return true;
    }
    record.name = name;
    const auto kind = kind_of_member(name);
    if (!kind || *size > options_.max_record_bytes) {
      if (!pass_over()) return give_up("the archive ends inside a member");
      if (!kind) continue;
      record.bad = fmt::format("member of {} bytes, longer than {}", *size, options_.max_record_bytes);
      return true;
    }
    record.kind = *kind;
    if (!read_all(record.bytes, *size)) return give_up("the archive ends inside a member");
    return true;
  }
  finished_ = true;
  return false;
}

}  // namespace stoker::corpus
