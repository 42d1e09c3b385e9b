#include "checkpoint/record.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/checked.h"

namespace stoker::checkpoint {
namespace {

using Json = nlohmann::ordered_json;
constexpr int kVersion = 1;
constexpr const char* kIndexFormat = "stoker-checkpoint-index";
constexpr const char* kCommitFormat = "stoker-checkpoint";

Json parse_object(std::string_view text, const std::string& where, const char* format) {
  Json j = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (j.is_discarded() || !j.is_object()) fail(ErrorKind::kData, "'{}': not a JSON object", where);
  if (j.value("format", Json()) != format)
    fail(ErrorKind::kData, "'{}': expected format \"{}\", found {}", where, format,
         j.value("format", Json()).dump());
  if (j.value("version", Json()) != kVersion)
    fail(ErrorKind::kData,
         "'{}': version {} is not known to this program: expected {}. A newer Stoker wrote it.", where,
         j.value("version", Json()).dump(), kVersion);
  return j;
}

const Json& field(const Json& j, const char* key, const std::string& where) {
  const auto it = j.is_object() ? j.find(key) : j.end();
  if (!j.is_object() || it == j.end()) fail(ErrorKind::kData, "'{}': field '{}' is missing", where, key);
  return *it;
}

int64_t whole(const Json& j, const char* key, const std::string& where) {
  const Json& v = field(j, key, where);
  if (!v.is_number_unsigned() || v.get<uint64_t>() > uint64_t{0x7fffffffffffffff})
    fail(ErrorKind::kData, "'{}': field '{}' is {}: expected a whole number of at least 0", where, key,
         v.dump());
  return v.get<int64_t>();
}

uint64_t size(const Json& j, const char* key, const std::string& where) {
  return static_cast<uint64_t>(whole(j, key, where));
}

std::string text_of(const Json& j, const char* key, const std::string& where) {
  const Json& v = field(j, key, where);
  if (!v.is_string()) fail(ErrorKind::kData, "'{}': field '{}' is not a string", where, key);
  return v.get<std::string>();
}

const Json& list(const Json& j, const char* key, const std::string& where) {
  const Json& v = field(j, key, where);
  if (!v.is_array()) fail(ErrorKind::kData, "'{}': field '{}' is not a list", where, key);
  return v;
}

// A name that stays inside the checkpoint's directory.
std::string file_name(const Json& j, const char* key, const std::string& where) {
  std::string name = text_of(j, key, where);
  const bool plain = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                     name.find('\0') == std::string::npos;
  if (!plain)
    fail(ErrorKind::kData, "'{}': field '{}' is \"{}\": expected a plain file name", where, key, name);
  return name;
}

Hash128 hash_field(const Json& j, const char* key, const std::string& where) {
  return parse_hash128(text_of(j, key, where), where);
}

uint64_t parse_hex64(std::string_view hex, const std::string& where) {
  uint64_t v = 0;
  const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), v, 16);
  if (hex.size() != 16 || error != std::errc() || end != hex.data() + hex.size())
    fail(ErrorKind::kData, "'{}': \"{}\" is not a hash of 16 hexadecimal digits", where, hex.substr(0, 40));
  return v;
}

Piece parse_piece(const Json& j, const std::string& where) {
  Piece p;
  p.tensor = text_of(j, "tensor", where);
  const std::string part = text_of(j, "part", where);
  if (part == to_string(Part::kOptimizer)) p.part = Part::kOptimizer;
  else if (part != to_string(Part::kWeights))
    fail(ErrorKind::kData, "'{}': part \"{}\" is not known", where, part);
  p.dtype = dtype_from_string(text_of(j, "dtype", where));
  for (const Json& d : list(j, "shape", where)) {
    if (!d.is_number_unsigned() || d.get<uint64_t>() > uint64_t{0x7fffffffffffffff})
      fail(ErrorKind::kData, "'{}': tensor '{}' has dimension {}", where, p.tensor, d.dump());
    p.shape.push_back(d.get<int64_t>());
  }
  if (p.shape.size() > 5)
    fail(ErrorKind::kData, "'{}': tensor '{}' has {} dimensions, at most 5", where, p.tensor, p.shape.size());
  p.first_row = whole(j, "first_row", where);
  p.rows = whole(j, "rows", where);
  p.file = file_name(j, "file", where);
  p.offset = size(j, "offset", where);
  p.bytes = size(j, "bytes", where);
  p.hash = hash_field(j, "hash", where);
  for (const Json& b : list(j, "blocks", where)) {
    if (!b.is_string())
      fail(ErrorKind::kData, "'{}': tensor '{}' has a block that is not a string", where, p.tensor);
    p.blocks.push_back(parse_hex64(b.get<std::string>(), where));
  }
  if (p.rows > total_rows(p) || p.first_row > total_rows(p) - p.rows)
    fail(ErrorKind::kData, "'{}': tensor '{}' has rows {} to {} of {}", where, p.tensor, p.first_row,
         p.first_row + p.rows, total_rows(p));
  const uint64_t expected = checked_mul(row_bytes(p), static_cast<uint64_t>(p.rows), p.tensor);
  if (p.bytes != expected || p.blocks.size() != (p.bytes + kBlockBytes - 1) / kBlockBytes)
    fail(ErrorKind::kData, "'{}': tensor '{}' has {} bytes in {} blocks: its shape needs {} bytes", where,
         p.tensor, p.bytes, p.blocks.size(), expected);
  return p;
}

}  // namespace

std::string_view to_string(Part part) { return part == Part::kWeights ? "weights" : "optimizer"; }

int64_t total_rows(const Piece& p) { return p.shape.empty() ? 1 : p.shape.front(); }

uint64_t row_bytes(const Piece& p) {
  uint64_t n = dtype_size(p.dtype);
  for (size_t i = 1; i < p.shape.size(); ++i) n = checked_mul(n, static_cast<uint64_t>(p.shape[i]), p.tensor);
  return n;
}

std::string index_name(int writer) { return fmt::format("index-{:05}.json", writer); }

std::string to_json(const WriterIndex& index) {
  Json j = {{"format", kIndexFormat},
            {"version", kVersion},
            {"writer", index.writer},
            {"writers", index.writers},
            {"block_bytes", kBlockBytes}};
  j["files"] = Json::array();
  for (const TensorFile& f : index.files)
    j["files"].push_back({{"name", f.name},
                          {"bytes", f.bytes},
                          {"header_bytes", f.header_bytes},
                          {"header_hash", f.header_hash.hex()}});
  j["pieces"] = Json::array();
  for (const Piece& p : index.pieces) {
    Json blocks = Json::array();
    for (const uint64_t b : p.blocks) blocks.push_back(fmt::format("{:016x}", b));
    j["pieces"].push_back({{"tensor", p.tensor},
                           {"part", std::string(to_string(p.part))},
                           {"dtype", std::string(to_string(p.dtype))},
                           {"shape", p.shape},
                           {"first_row", p.first_row},
                           {"rows", p.rows},
                           {"file", p.file},
                           {"offset", p.offset},
                           {"bytes", p.bytes},
                           {"hash", p.hash.hex()},
                           {"blocks", std::move(blocks)}});
  }
  return j.dump(1) + "\n";
}

WriterIndex parse_index(std::string_view text, const std::string& where) {
  const Json j = parse_object(text, where, kIndexFormat);
  if (size(j, "block_bytes", where) != kBlockBytes)
    fail(ErrorKind::kData, "'{}': block_bytes is {}: expected {}", where, size(j, "block_bytes", where),
         kBlockBytes);
  WriterIndex index;
  index.writer = checked_cast<int>(whole(j, "writer", where), where);
  index.writers = checked_cast<int>(whole(j, "writers", where), where);
  if (index.writer >= index.writers)
    fail(ErrorKind::kData, "'{}': writer {} of {}", where, index.writer, index.writers);
  for (const Json& f : list(j, "files", where)) {
    TensorFile file{file_name(f, "name", where), size(f, "bytes", where), size(f, "header_bytes", where),
                    hash_field(f, "header_hash", where)};
    if (file.header_bytes > file.bytes)
      fail(ErrorKind::kData, "'{}': file '{}' has {} bytes, its header {}", where, file.name, file.bytes,
           file.header_bytes);
    index.files.push_back(std::move(file));
  }
  for (const Json& p : list(j, "pieces", where)) {
    Piece piece = parse_piece(p, where);
    const TensorFile* holder = nullptr;
    for (const TensorFile& f : index.files)
      if (f.name == piece.file) holder = &f;
    if (!holder || piece.offset < holder->header_bytes || piece.offset > holder->bytes ||
        piece.bytes > holder->bytes - piece.offset)
      fail(ErrorKind::kData, "'{}': tensor '{}' is said to lie in '{}' at byte {}: there is no such place",
           where, piece.tensor, piece.file, piece.offset);
    index.pieces.push_back(std::move(piece));
  }
  return index;
}

std::string to_json(const Commit& c) {
  Json j = {{"format", kCommitFormat},
            {"version", kVersion},
            {"step", c.step},
            {"writers", c.writers},
            {"weights_hash", c.weights_hash.hex()},
            {"tensor_bytes", c.tensor_bytes},
            {"unix_s", c.unix_s}};
  j["files"] = Json::array();
  for (const CommittedFile& f : c.files)
    j["files"].push_back({{"name", f.name}, {"bytes", f.bytes}, {"hash", f.hash.hex()}});
  j["hash"] = hash128(j.dump()).hex();
  return j.dump(1) + "\n";
}

Commit parse_commit(std::string_view text, const std::string& where) {
  const Json j = parse_object(text, where, kCommitFormat);
  Commit c;
  c.step = whole(j, "step", where);
  c.writers = checked_cast<int>(whole(j, "writers", where), where);
  c.weights_hash = hash_field(j, "weights_hash", where);
  c.tensor_bytes = size(j, "tensor_bytes", where);
  if (const Json& t = field(j, "unix_s", where); t.is_number()) c.unix_s = t.get<double>();
  for (const Json& f : list(j, "files", where))
    c.files.push_back({file_name(f, "name", where), size(f, "bytes", where), hash_field(f, "hash", where)});
  // Whatever was understood must say the same, to the last byte: this covers the hash and what JSON would
  // forgive.
  if (to_json(c) != text)
    fail(ErrorKind::kData, "'{}': the contents do not match their hash: the marker is damaged", where);
  return c;
}

Hash128 parse_hash128(std::string_view hex, const std::string& where) {
  if (hex.size() != 32)
    fail(ErrorKind::kData, "'{}': \"{}\" is not a hash of 32 hexadecimal digits", where, hex.substr(0, 40));
  return {parse_hex64(hex.substr(0, 16), where), parse_hex64(hex.substr(16), where)};
}

std::string directory_name(int64_t step, int revision) {
  return revision ? fmt::format("step-{:08}-r{}", step, revision) : fmt::format("step-{:08}", step);
}

StepName parse_directory_name(std::string_view name) {
  StepName out;
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return out;
  const char* at = name.data() + kPrefix.size();
  const char* end = name.data() + name.size();
  int64_t step = -1;
  auto [after, error] = std::from_chars(at, end, step);
  if (error != std::errc() || step < 0) return out;
  if (after != end) {
    if (end - after < 3 || after[0] != '-' || after[1] != 'r') return out;
    const auto rest = std::from_chars(after + 2, end, out.revision);
    if (rest.ec != std::errc() || rest.ptr != end || out.revision < 1) return {};
  }
  out.step = step;
  return out;
}

}  // namespace stoker::checkpoint
