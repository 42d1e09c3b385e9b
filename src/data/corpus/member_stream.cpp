#include "data/corpus/member_stream.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "data/corpus/tar_reader.h"

namespace stoker::corpus {
namespace {
constexpr uint64_t kMostHeaderText = 1 << 20;      // a pax header or a long name
constexpr uint64_t kMostConfiguration = 16 << 20;  // of an MDS shard
constexpr uint64_t kMostColumns = 4096;

// Exact reads and skips over the caller's stream.
class Source {
 public:
  explicit Source(MemberStream::Read read) : read_(std::move(read)) {}
  uint64_t at() const { return at_; }
  size_t some(char* to, size_t n) {
    size_t got = 0;
    while (got < n) {
      const size_t more = read_(to + got, n - got);
      if (more == 0) break;
      got += more;
    }
    at_ += got;
    return got;
  }
  void exactly(char* to, size_t n, std::string_view what) {
    if (const size_t got = some(to, n); got != n)
      fail(ErrorKind::kData, "byte {}: {} should have {} bytes, found {}: the file was cut short", at_ - got,
           what, n, got);
  }
  std::string text(uint64_t n, std::string_view what) {
    std::string out;
    while (out.size() < n) {  // grows with what arrives, not with what a header promises
      const size_t at = out.size(), part = static_cast<size_t>(std::min<uint64_t>(n - at, 1 << 20));
      out.resize(at + part);
      exactly(out.data() + at, part, what);
    }
    return out;
  }
  void skip(uint64_t n, std::string_view what) {
    std::vector<char> waste(static_cast<size_t>(std::min<uint64_t>(n, 1 << 16)));
    while (n > 0) {
      const auto part = static_cast<size_t>(std::min<uint64_t>(n, waste.size()));
      exactly(waste.data(), part, what);
      n -= part;
    }
  }

 private:
  MemberStream::Read read_;
  uint64_t at_ = 0;
};

class TarStream final : public MemberStream {
 public:
  TarStream(Read read, std::string extension, uint64_t most)
      : source_(std::move(read)), suffix_("." + extension), most_(most) {}

  bool next(Member& member) override {
    std::string long_name;
    std::optional<uint64_t> long_size;
    for (;;) {
      char header[kTarBlock];
      const uint64_t at = source_.at();
      const size_t got = source_.some(header, kTarBlock);
      if (got == 0) return false;
      if (got < kTarBlock)
        fail(ErrorKind::kData, "byte {}: a tar header has 512 bytes, found {}: the file was cut short", at,
             got);
      if (std::all_of(header, header + kTarBlock, [](char c) { return c == 0; })) return false;
      check_sum(header, at);
      uint64_t size = number(header + 124, 12, at);
      const char type = header[156];
      const uint64_t padding = (kTarBlock - size % kTarBlock) % kTarBlock;
      if (type == 'L' || type == 'x') {
        if (size > kMostHeaderText) fail(ErrorKind::kData, "byte {}: a tar name of {} bytes", at, size);
        const std::string text = source_.text(size, "a long tar name");
        source_.skip(padding, "tar padding");
        if (type == 'L') long_name = text.substr(0, text.find('\0'));
        else pax(text, long_name, long_size, at);
        continue;
      }
      std::string name = std::move(long_name);
      long_name.clear();
      if (name.empty()) {
        const std::string prefix(header + 345, strnlen(header + 345, 155));
        name = std::string(header, strnlen(header, 100));
        if (std::memcmp(header + 257, "ustar", 5) == 0 && !prefix.empty()) name = prefix + "/" + name;
      }
      if (long_size) size = *long_size;
      long_size.reset();
      const uint64_t tail = (kTarBlock - size % kTarBlock) % kTarBlock;
      const bool regular = type == '0' || type == '\0';
      if (!regular || !name.ends_with(suffix_)) {
        source_.skip(size, "a tar member");
        source_.skip(tail, "tar padding");
        continue;
      }
      member = {count_++, {}, 0};
      if (size > most_) {
        member.too_long = size;
        source_.skip(size, "a tar member");
      } else {
        member.bytes = source_.text(size, "a tar member");
      }
      source_.skip(tail, "tar padding");
      return true;
    }
  }

 private:
  static uint64_t number(const char* field, size_t n, uint64_t at) {
    uint64_t value = 0;
    if (static_cast<uint8_t>(field[0]) & 0x80) {  // base 256, big-endian
      for (size_t i = 0; i < n; ++i) {
        if (value >> 55) fail(ErrorKind::kData, "byte {}: a tar size that does not fit in 63 bits", at);
        value = value << 8 | (static_cast<uint8_t>(field[i]) & (i ? 0xFF : 0x7F));
      }
      return value;
    }
    for (size_t i = 0; i < n && field[i] != 0; ++i) {
      if (field[i] == ' ') continue;
      if (field[i] < '0' || field[i] > '7')
        fail(ErrorKind::kData, "byte {}: a tar size is octal digits, found others", at);
      value = value * 8 + static_cast<uint64_t>(field[i] - '0');
    }
    return value;
  }
  static void check_sum(const char* header, uint64_t at) {
    uint64_t sum = 0;
    for (size_t i = 0; i < kTarBlock; ++i) sum += i >= 148 && i < 156 ? ' ' : static_cast<uint8_t>(header[i]);
    if (number(header + 148, 8, at) != sum)
      fail(ErrorKind::kData, "byte {}: expected a tar header, found one with a wrong checksum", at);
  }
  // Records "length key=value\n".
  static void pax(std::string_view text, std::string& name, std::optional<uint64_t>& size, uint64_t at) {
    while (!text.empty() && text.front() != '\0') {
      uint64_t length = 0;
      size_t i = 0;
      while (i < text.size() && text[i] >= '0' && text[i] <= '9' && i < 8)
        length = length * 10 + static_cast<uint64_t>(text[i++] - '0');
      if (i == 0 || i >= text.size() || text[i] != ' ' || length <= i + 1 || length > text.size())
        fail(ErrorKind::kData, "byte {}: a malformed pax header", at);
      const std::string_view record = text.substr(i + 1, length - i - 2);
      const size_t equals = record.find('=');
      if (record.substr(0, equals) == "path" && equals != std::string_view::npos)
        name = record.substr(equals + 1);
      if (record.substr(0, equals) == "size" && equals != std::string_view::npos) {
        uint64_t value = 0;
        for (const char c : record.substr(equals + 1)) {
          if (c < '0' || c > '9') fail(ErrorKind::kData, "byte {}: a pax size that is no number", at);
          value = checked_add<uint64_t>(checked_mul<uint64_t>(value, 10, "pax size"),
                                        static_cast<uint64_t>(c - '0'), "pax size");
        }
        size = value;
      }
      text.remove_prefix(length);
    }
  }

  Source source_;
  std::string suffix_;
  uint64_t most_, count_ = 0;
};

class MdsStream final : public MemberStream {
 public:
  MdsStream(Read read, std::string column, uint64_t most)
      : source_(std::move(read)), wanted_(std::move(column)), most_(most) {}

  bool next(Member& member) override {
    if (offsets_.empty()) open();
    if (sample_ + 1 >= offsets_.size()) return false;
    const uint64_t size = offsets_[sample_ + 1] - offsets_[sample_];
    member = {sample_++, {}, 0};
    if (size > most_ + 4 * sizes_.size()) {
      member.too_long = size;
      source_.skip(size, "an MDS sample");
      return true;
    }
    const std::string bytes = source_.text(size, "an MDS sample");
    // u32 size of each variable column, then the columns, in the order of the configuration.
    uint64_t head = 0, begin = 0;
    for (const uint64_t fixed : sizes_) head += fixed == kVariable ? 4 : 0;
    uint64_t at = head, length_at = 0;
    for (size_t c = 0; c < sizes_.size(); ++c) {
      uint64_t length = sizes_[c];
      if (length == kVariable) {
        uint32_t stored = 0;
        if (length_at + 4 > size) bad_sample(size);
        std::memcpy(&stored, bytes.data() + length_at, 4);
        length_at += 4;
        length = stored;
      }
      begin = at;
      at += length;  // both below 2^32 and 2^40
      if (at > size) bad_sample(size);
      if (c == column_) member.bytes = bytes.substr(begin, length);
    }
    if (at != size) bad_sample(size);
    return true;
  }

 private:
  static constexpr uint64_t kVariable = ~uint64_t{0};
  [[noreturn]] void bad_sample(uint64_t size) const {
    fail(ErrorKind::kData, "MDS sample {}: its columns do not add up to its {} bytes", sample_ - 1, size);
  }
  void open() {
    uint32_t samples = 0;
    source_.exactly(reinterpret_cast<char*>(&samples), 4, "an MDS header");
    const std::string raw = source_.text(4 * (uint64_t{samples} + 1), "the MDS offsets");
    offsets_.resize(uint64_t{samples} + 1);
    std::memcpy(offsets_.data(), raw.data(), raw.size());
    if (offsets_[0] < source_.at() || offsets_[0] - source_.at() > kMostConfiguration)
      fail(ErrorKind::kData, "byte 4: the first MDS sample cannot begin at {}: the header ends at {}",
           offsets_[0], source_.at());
    for (size_t i = 1; i < offsets_.size(); ++i)
      if (offsets_[i] < offsets_[i - 1])
        fail(ErrorKind::kData, "byte {}: MDS offset {} is below the one before it", 4 + 4 * i, offsets_[i]);
    const auto config = nlohmann::json::parse(
        source_.text(offsets_[0] - source_.at(), "the MDS configuration"), nullptr, false);
    auto names = config.is_object() ? config.value("column_names", nlohmann::json()) : nlohmann::json();
    auto encodings =
        config.is_object() ? config.value("column_encodings", nlohmann::json()) : nlohmann::json();
    auto sizes = config.is_object() ? config.value("column_sizes", nlohmann::json()) : nlohmann::json();
    if (!names.is_array() || !encodings.is_array() || !sizes.is_array() || names.size() != encodings.size() ||
        names.size() != sizes.size() || names.size() > kMostColumns ||
        config.value("format", nlohmann::json()) != "mds" || config.value("version", nlohmann::json()) != 2)
      fail(ErrorKind::kData,
           "expected the configuration of an MDS shard of version 2 (column_names, column_encodings, "
           "column_sizes)");
    std::string list;
    bool found = false;
    for (size_t c = 0; c < names.size(); ++c) {
      if (!names[c].is_string() || !encodings[c].is_string())
        fail(ErrorKind::kData, "MDS column {}: name and encoding must be strings", c);
      const bool variable = sizes[c].is_null();
      if (!variable && (!sizes[c].is_number_unsigned() || sizes[c].get<uint64_t>() > UINT32_MAX))
        fail(ErrorKind::kData, "MDS column {}: a size is null or a number", c);
      sizes_.push_back(variable ? kVariable : sizes[c].get<uint64_t>());
      const auto name = names[c].get<std::string>(), encoding = encodings[c].get<std::string>();
      list += (c ? ", " : "") + name;
      if (name != wanted_) continue;
      found = true;
      column_ = c;
      if (encoding == "pkl")
        fail(ErrorKind::kData,
             "column \"{}\" is pickled, and unpickling runs whatever code the file holds. Write it as str "
             "instead",
             name);
      if (encoding != "str" && encoding != "bytes")
        fail(ErrorKind::kData, "column \"{}\" is {}: expected str or bytes", name, encoding);
    }
    if (!found)
      fail(ErrorKind::kData, "no column \"{}\": the shard has {} (--json-field chooses)", wanted_, list);
  }

  Source source_;
  std::string wanted_;
  uint64_t most_;
  std::vector<uint32_t> offsets_;
  std::vector<uint64_t> sizes_;
  size_t column_ = 0;
  uint64_t sample_ = 0;
};
}  // namespace

std::unique_ptr<MemberStream> open_tar(MemberStream::Read read, std::string extension,
                                       uint64_t max_member_bytes) {
  return std::make_unique<TarStream>(std::move(read), std::move(extension), max_member_bytes);
}
std::unique_ptr<MemberStream> open_mds(MemberStream::Read read, std::string column,
                                       uint64_t max_member_bytes) {
  return std::make_unique<MdsStream>(std::move(read), std::move(column), max_member_bytes);
}

}  // namespace stoker::corpus
