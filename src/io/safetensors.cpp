#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/checked.h"

namespace stoker::io {
namespace {

using Json = nlohmann::ordered_json;
constexpr uint64_t kMostHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr size_t kLengthBytes = 8;
constexpr uint64_t kDataAlignment = 64;

struct DtypeBits {
  std::string_view name;
  int bits;
};
constexpr DtypeBits kDtypes[] = {
    {"F32", 32}, {"BF16", 16},   {"F16", 16},    {"F64", 64},    {"I32", 32},    {"I64", 64},   {"U8", 8},
    {"I8", 8},   {"BOOL", 8},    {"I16", 16},    {"U16", 16},    {"U32", 32},    {"U64", 64},   {"C64", 64},
    {"F4", 4},   {"F8_E8M0", 8}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}};

uint64_t little_endian(std::string_view bytes) {
  uint64_t v = 0;
  for (size_t i = kLengthBytes; i-- > 0;) v = v << 8 | static_cast<unsigned char>(bytes[i]);
  return v;
}

// nlohmann keeps the last of two equal keys; here that is an error.
Json parse_unique(std::string_view text, const std::string& where) {
  std::vector<std::set<std::string>> keys;
  std::string twice;
  const auto on_event = [&](int depth, Json::parse_event_t event, Json& value) {
    const auto at = static_cast<size_t>(depth);
    if (event == Json::parse_event_t::object_start) {
      keys.resize(std::max(keys.size(), at + 1));
      keys[at].clear();
    } else if (event == Json::parse_event_t::key && !keys[at - 1].insert(value.get<std::string>()).second) {
      twice = value.get<std::string>();
    }
    return true;
  };
  Json j = Json::parse(text, on_event, /*allow_exceptions=*/false);
  if (j.is_discarded()) fail(ErrorKind::kData, "'{}': the header is not valid JSON", where);
  if (!twice.empty()) fail(ErrorKind::kData, "'{}': the header says '{}' twice", where, twice);
  if (!j.is_object()) fail(ErrorKind::kData, "'{}': the header is not a JSON object", where);
  return j;
}

uint64_t unsigned_at(const Json& j, const std::string& what) {
  if (!j.is_number_unsigned())
    fail(ErrorKind::kData, "{}: expected a whole number of at least 0, found {}", what, j.dump());
  return j.get<uint64_t>();
}

TensorEntry parse_entry(const std::string& name, const Json& j, uint64_t data_start, uint64_t data_bytes,
                        const std::string& where) {
  const std::string what = fmt::format("'{}', tensor '{}'", where, name);
  if (!j.is_object() || !j.contains("dtype") || !j.contains("shape") || !j.contains("data_offsets") ||
      j.size() != 3)
    fail(ErrorKind::kData, "{}: expected dtype, shape and data_offsets", what);
  TensorEntry t;
  t.name = name;
  if (!j["dtype"].is_string()) fail(ErrorKind::kData, "{}: dtype is not a string", what);
  t.dtype = j["dtype"].get<std::string>();
  if (!j["shape"].is_array()) fail(ErrorKind::kData, "{}: shape is not a list", what);
  for (const Json& d : j["shape"])
    t.shape.push_back(checked_cast<int64_t>(unsigned_at(d, what + ", shape"), what + ", shape"));
  const Json& offsets = j["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2)
    fail(ErrorKind::kData, "{}: data_offsets is not a pair", what);
  const uint64_t begin = unsigned_at(offsets[0], what + ", data_offsets");
  const uint64_t end = unsigned_at(offsets[1], what + ", data_offsets");
  if (begin > end || end > data_bytes)
    fail(ErrorKind::kData, "{}: lies at bytes {} to {} of {}. The file is truncated or damaged.", what, begin,
         end, data_bytes);
  t.bytes = end - begin;
  t.offset = data_start + begin;
  uint64_t expected;
  try {
    expected = declared_bytes(t);
  } catch (const Error& e) {
    fail(ErrorKind::kData, "'{}': {}", where, e.what());
  }
  if (t.bytes != expected)
    fail(ErrorKind::kData, "{}: has {} bytes, but its type {} and shape need {}", what, t.bytes, t.dtype,
         expected);
  return t;
}

void check_contiguous(const std::vector<TensorEntry>& tensors, uint64_t data_start, uint64_t file_bytes,
                      const std::string& where) {
  uint64_t at = data_start;
  for (const TensorEntry& t : tensors) {
    if (t.offset != at)
      fail(ErrorKind::kData, "'{}', tensor '{}': starts at byte {} of the file, expected {} ({})", where,
           t.name, t.offset, at, t.offset < at ? "overlaps the one before" : "there is a gap");
    at += t.bytes;
  }
  if (at != file_bytes)
    fail(ErrorKind::kData, "'{}': the last tensor ends at byte {}, the file at {}", where, at, file_bytes);
}

std::unordered_map<std::string_view, size_t> index_by_name(const std::vector<TensorEntry>& tensors) {
  std::unordered_map<std::string_view, size_t> out;
  for (size_t i = 0; i < tensors.size(); ++i) out.emplace(tensors[i].name, i);
  return out;
}

}  // namespace

int safetensors_dtype_bits(std::string_view dtype) {
  for (const DtypeBits& d : kDtypes)
    if (d.name == dtype) return d.bits;
  return 0;
}

uint64_t declared_bytes(const TensorDeclaration& t) {
  const int bits = safetensors_dtype_bits(t.dtype);
  if (!bits) fail(ErrorKind::kData, "tensor '{}': type '{}' is not one of safetensors'", t.name, t.dtype);
  uint64_t count = 1;
  bool empty = false;
  for (const int64_t d : t.shape) {
    if (d < 0) fail(ErrorKind::kData, "tensor '{}': dimension {} is negative", t.name, d);
    if (d == 0) empty = true;
    else count = checked_mul(count, static_cast<uint64_t>(d), t.name);
  }
  if (empty) return 0;
  const uint64_t total_bits = checked_mul(count, static_cast<uint64_t>(bits), t.name);
  if (total_bits % 8)
    fail(ErrorKind::kData, "tensor '{}': {} elements of {} are not whole bytes", t.name, count, t.dtype);
  return total_bits / 8;
}

SafetensorsHeader parse_safetensors_header(std::string_view start, uint64_t file_bytes,
                                           const std::string& where) {
  if (file_bytes < kLengthBytes || start.size() < kLengthBytes)
    fail(ErrorKind::kData, "'{}' has {} bytes: too short for a safetensors file", where, file_bytes);
  const uint64_t header_bytes = little_endian(start);
  if (header_bytes > kMostHeaderBytes || header_bytes < 2 || header_bytes > file_bytes - kLengthBytes ||
      header_bytes > start.size() - kLengthBytes)
    fail(ErrorKind::kData,
         "'{}': the header should have {} bytes, in a file of {}. Not a safetensors file, or truncated.",
         where, header_bytes, file_bytes);
  const std::string_view text = start.substr(kLengthBytes, header_bytes);
  if (text.front() != '{')
    fail(ErrorKind::kData, "'{}': the header does not start with '{{': not a safetensors file", where);
  const Json j = parse_unique(text, where);
  const uint64_t data_start = kLengthBytes + header_bytes;
  SafetensorsHeader header;
  for (const auto& [name, value] : j.items()) {
    if (name != "__metadata__") {
      header.tensors.push_back(parse_entry(name, value, data_start, file_bytes - data_start, where));
      continue;
    }
    if (!value.is_object()) fail(ErrorKind::kData, "'{}': __metadata__ is not an object", where);
    for (const auto& [key, text_value] : value.items()) {
      if (!text_value.is_string())
        fail(ErrorKind::kData, "'{}': __metadata__ '{}' is not a string", where, key);
      header.metadata[key] = text_value.get<std::string>();
    }
  }
  // Empty tensors share an offset with their neighbour: sizes decide there.
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
  });
  check_contiguous(header.tensors, data_start, file_bytes, where);
  return header;
}

namespace {
// By positional reads, not through the mapping: a device that fails then gives an error instead of a signal.
SafetensorsHeader read_header(const ReadableFile& file) {
  std::string start(std::min<uint64_t>(file.size(), kLengthBytes), '\0');
  file.read_at(0, start.data(), start.size());
  if (start.size() == kLengthBytes) {
    const uint64_t header_bytes =
        std::min({little_endian(start), kMostHeaderBytes, file.size() - kLengthBytes});
    start.resize(kLengthBytes + header_bytes);
    file.read_at(kLengthBytes, start.data() + kLengthBytes, header_bytes);
  }
  return parse_safetensors_header(start, file.size(), file.path());
}
}  // namespace

SafetensorsFile::SafetensorsFile(FileSystem& fs, const std::string& path, Access access)
    : file_(fs.open_read(path, access)),
      header_(read_header(*file_)),
      by_name_(index_by_name(header_.tensors)) {}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &header_.tensors[it->second];
}

const TensorEntry& SafetensorsFile::at(std::string_view name) const {
  const TensorEntry* t = find(name);
  if (!t) fail(ErrorKind::kData, "'{}': has no tensor '{}'", path(), name);
  return *t;
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorEntry& t) const {
  return file_->map().subspan(t.offset, t.bytes);
}

void SafetensorsFile::read(const TensorEntry& t, uint64_t offset, void* to, size_t bytes) const {
  STOKER_CHECK(offset <= t.bytes && bytes <= t.bytes - offset, "{}: {} + {} of {}", t.name, offset, bytes,
               t.bytes);
  file_->read_at(t.offset + offset, to, bytes);
}

SafetensorsWriter::SafetensorsWriter(FileSystem& fs, const std::string& path,
                                     std::vector<TensorDeclaration> tensors, const Metadata& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorDeclaration& a, const TensorDeclaration& b) {
    const int wa = safetensors_dtype_bits(a.dtype), wb = safetensors_dtype_bits(b.dtype);
    return wa != wb ? wa > wb : a.name < b.name;
  });
  Json j = Json::object();
  if (!metadata.empty()) j["__metadata__"] = metadata;
  uint64_t at = 0;
  for (TensorDeclaration& t : tensors) {
    const uint64_t bytes = declared_bytes(t);
    STOKER_CHECK(t.name != "__metadata__" && !j.contains(t.name), "tensor {} declared twice", t.name);
    const uint64_t end = checked_add(at, bytes, path);
    j[t.name] = {{"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {at, end}}};
    TensorEntry entry;
    static_cast<TensorDeclaration&>(entry) = std::move(t);
    entry.offset = at, entry.bytes = bytes;
    tensors_.push_back(std::move(entry));
    at = end;
  }
  std::string text = j.dump();
  const uint64_t unpadded = kLengthBytes + text.size();
  text.append((kDataAlignment - unpadded % kDataAlignment) % kDataAlignment, ' ');
  if (text.size() > kMostHeaderBytes)
    fail(ErrorKind::kUsage, "'{}': {} tensors need a header of {} bytes, more than the format's {}", path,
         tensors_.size(), text.size(), kMostHeaderBytes);
  for (size_t i = 0; i < kLengthBytes; ++i) header_ += static_cast<char>(text.size() >> (8 * i) & 0xff);
  header_ += text;
  for (TensorEntry& t : tensors_) t.offset += header_.size();
  by_name_ = index_by_name(tensors_);
  written_.assign(tensors_.size(), 0);
  file_bytes_ = header_.size() + at;
  file_ = fs.create(path);
  file_->append(header_);
}

void SafetensorsWriter::write(std::string_view name, const void* data, size_t bytes) {
  const auto it = by_name_.find(name);
  STOKER_CHECK(it != by_name_.end() && tensors_[it->second].bytes == bytes,
               "tensor {} of {} bytes was not declared", name, bytes);
  write_part(name, 0, data, bytes);
}

void SafetensorsWriter::write_part(std::string_view name, uint64_t offset, const void* data, size_t bytes) {
  const auto it = by_name_.find(name);
  STOKER_CHECK(it != by_name_.end(), "tensor {} was not declared", name);
  const TensorEntry& t = tensors_[it->second];
  STOKER_CHECK(offset <= t.bytes && bytes <= t.bytes - offset, "{}: {} + {} of {}", name, offset, bytes,
               t.bytes);
  if (bytes) file_->write_at(t.offset + offset, data, bytes);
  written_[it->second] += bytes;
}

void SafetensorsWriter::finish() {
  for (size_t i = 0; i < tensors_.size(); ++i)
    STOKER_CHECK(written_[i] == tensors_[i].bytes, "{}: {} of {} bytes were written", tensors_[i].name,
                 written_[i], tensors_[i].bytes);
  file_->sync();
  file_->close();
}

}  // namespace stoker::io
