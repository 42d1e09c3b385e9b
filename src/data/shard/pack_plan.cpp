#include "data/shard/pack_plan.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "data/shard/best_fit.h"
#include "data/shard/hashed_file.h"
#include "data/shard/record_log.h"
#include "data/shard/strict_json.h"
#include "io/atomic_write.h"

namespace stoker::data {
namespace {
using Json = nlohmann::json;
constexpr std::string_view kRowsMagic{"STKROWS\0", 8};
constexpr uint64_t kRowsHeader = 48, kPieceBytes = 16;
constexpr uint64_t kMostLength = uint64_t{1} << 24;
constexpr std::string_view kPlanFormat = "stoker-pack-plan";
constexpr std::string_view kAdvice = "make it again with: stoker data pack";

template <typename T>
T load(std::span<const std::byte> bytes, uint64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}
}  // namespace

PackRows PackRows::parse(std::span<const std::byte> bytes, std::string file) {
  if (bytes.size() < kRowsHeader || std::memcmp(bytes.data(), kRowsMagic.data(), 8) != 0)
    fail(ErrorKind::kData, "{}: expected the {} bytes header of packed rows, found {}; {}", file, kRowsHeader,
         bytes.size() < kRowsHeader ? fmt::format("{} bytes", bytes.size()) : "another magic", kAdvice);
  if (const auto version = load<uint64_t>(bytes, 8); version != 1)
    fail(ErrorKind::kData, "{}: this Stoker reads version 1 of packed rows, found {}", file, version);
  PackRows out;
  out.bytes_ = bytes;
  out.file_ = std::move(file);
  out.length_ = load<uint64_t>(bytes, 16);
  out.rows_ = load<uint64_t>(bytes, 24);
  out.pieces_ = load<uint64_t>(bytes, 32);
  out.shard_tokens_ = load<uint64_t>(bytes, 40);
  if (out.length_ < 1 || out.length_ > kMostLength)
    fail(ErrorKind::kData, "{}: rows of {} tokens: expected 1 to {}", out.file_, out.length_, kMostLength);
  const uint64_t starts =
      checked_mul(checked_add(out.rows_, uint64_t{1}, "rows"), uint64_t{4}, "bytes of row starts");
  const uint64_t expected =
      checked_add(checked_add(kRowsHeader, starts, "bytes of packed rows"),
                  checked_mul(out.pieces_, kPieceBytes, "bytes of pieces"), "bytes of packed rows");
  if (bytes.size() != expected)
    fail(ErrorKind::kData, "{}: {} rows and {} pieces take {} bytes, found {}; {}", out.file_, out.rows_,
         out.pieces_, expected, bytes.size(), kAdvice);
  return out;
}

uint32_t PackRows::first_piece(uint64_t row) const { return load<uint32_t>(bytes_, kRowsHeader + 4 * row); }

PackedPiece PackRows::piece(uint64_t i) const {
  const uint64_t at = kRowsHeader + 4 * (rows_ + 1) + kPieceBytes * i;
  return {load<uint64_t>(bytes_, at), load<uint32_t>(bytes_, at + 8), load<uint32_t>(bytes_, at + 12)};
}

void PackRows::row(uint64_t row, std::vector<PackedPiece>& out) const {
  STOKER_CHECK(row < rows_, "row {} of {}", row, rows_);
  const uint64_t begin = first_piece(row), end = first_piece(row + 1);
  if (begin > end || end > pieces_)
    fail(ErrorKind::kData, "{}: row {} has pieces {} to {} of {}; {}", file_, row, begin, end, pieces_,
         kAdvice);
  uint64_t filled = 0;
  for (uint64_t i = begin; i < end; ++i) {
    const PackedPiece p = piece(i);
    filled += p.tokens;
    if (p.tokens == 0 || filled > length_ || p.first_token > shard_tokens_ ||
        p.tokens > shard_tokens_ - p.first_token)
      fail(ErrorKind::kData,
           "{}: row {} of {} tokens: piece of {} tokens from token {} of a shard of {} does not fit; {}",
           file_, row, length_, p.tokens, p.first_token, shard_tokens_, kAdvice);
    out.push_back(p);
  }
}

std::vector<uint64_t> PackRows::rows_with(uint64_t first, uint64_t count) const {
  std::vector<uint64_t> found;
  std::vector<PackedPiece> pieces;
  for (uint64_t r = 0; r < rows_; ++r) {
    pieces.clear();
    row(r, pieces);
    if (std::any_of(pieces.begin(), pieces.end(), [&](const PackedPiece& p) {
          return p.first_token < first + count && first < p.first_token + p.tokens;
        }))
      found.push_back(r);
  }
  return found;
}

namespace {
// The rows of a shard as they are found, in order, and then its file.
class RowsWriter {
 public:
  RowsWriter(io::FileSystem& fs, const Dataset& dataset, std::string name, uint64_t length)
      : fs_(fs),
        name_(std::move(name)),
        path_(io::join(dataset.directory(), name_)),
        length_(length),
        starts_(fs, path_),
        pieces_(fs, path_) {}
  void begin_row() { starts_.push_back(checked_cast<uint32_t>(pieces_.size(), "pieces of a shard")); }
  void add(const PackedPiece& piece) {
    predicted_ += piece.tokens;
    pieces_.push_back(piece);
  }
  PackShard write(uint64_t shard_tokens) {
    const uint64_t rows = starts_.size();
    begin_row();  // where the last one ends
    io::AtomicFile file(fs_, path_);
    HashedFile out(file.file());
    out.append(kRowsMagic.data(), kRowsMagic.size());
    for (const uint64_t value : {uint64_t{1}, length_, rows, pieces_.size(), shard_tokens}) out.put(value);
    starts_.for_each([&](uint32_t start) { out.put(start); });
    pieces_.for_each([&](const PackedPiece& p) {
      out.put(p.first_token);
      out.put(p.tokens);
      out.put(p.document);
    });
    PackShard record{rows, pieces_.size(), predicted_, out.finish(name_)};
    file.commit();
    return record;
  }

 private:
  io::FileSystem& fs_;
  std::string name_, path_;
  uint64_t length_, predicted_ = 0;
  RecordLog<uint32_t> starts_;
  RecordLog<PackedPiece> pieces_;
};

// The documents of a window of the shard, until they are packed.
class PackWindow {
 public:
  PackWindow(uint64_t length, uint64_t& documents_cut)
      : length_(static_cast<uint32_t>(length)), cut_(documents_cut) {}
  uint64_t tokens() const { return tokens_; }
  void add(uint64_t first_token, uint64_t tokens, uint64_t document) {
    documents_.emplace_back(first_token, checked_cast<uint32_t>(document, "documents of a shard"));
    lengths_.push_back(checked_cast<uint32_t>(tokens, "tokens of a document"));
    tokens_ += tokens;
  }
  void pack(RowsWriter& rows) {
    const PackPlan packed = pack_best_fit(lengths_, length_);
    for (size_t i = 0; i < packed.pieces.size(); ++i) {
      const PackPiece& p = packed.pieces[i];
      if (i == 0 || p.row != packed.pieces[i - 1].row) rows.begin_row();
      rows.add({documents_[p.document].first + p.first, p.tokens, documents_[p.document].second});
    }
    cut_ += packed.cut_documents;
    lengths_.clear(), documents_.clear(), tokens_ = 0;
  }

 private:
  uint32_t length_;
  uint64_t& cut_;
  std::vector<uint32_t> lengths_;
  std::vector<std::pair<uint64_t, uint32_t>> documents_;  // first predicted token, number
  uint64_t tokens_ = 0;
};

// <name>_<shard>.rows
std::string rows_name(const std::string& plan, std::string shard) {
  if (shard.ends_with(".bin")) shard.resize(shard.size() - 4);
  std::string name = fmt::format("{}_{}.rows", plan, shard);
  if (!is_plain_name(name)) fail(ErrorKind::kUsage, "packing plan \"{}\": the name is too long", plan);
  return name;
}
}  // namespace

double PackPlanManifest::padding() const { return padding_of(rows, length, tokens); }

std::string PackPlanManifest::to_json() const {
  Json list = Json::array();
  for (const auto& s : shards)
    list.push_back(
        {{"rows", s.rows}, {"pieces", s.pieces}, {"tokens", s.tokens}, {"file", data::to_json(s.file)}});
  return Json{{"format", kPlanFormat},
              {"version", 1},
              {"dataset", dataset.hex()},
              {"split", split},
              {"length", length},
              {"window_tokens", window_tokens},
              {"rows", rows},
              {"pieces", pieces},
              {"tokens", tokens},
              {"documents", documents},
              {"documents_cut", documents_cut},
              {"documents_left_out", documents_left_out},
              {"filter", Json::parse(filter)},
              {"shards", std::move(list)}}
      .dump();
}

PackPlanManifest PackPlanManifest::parse(std::string_view text, std::string_view file_view) {
  const std::string file(file_view);
  const Json json = parse_strict_object(text, file, kAdvice);
  Fields f(json, file, "");
  f.expect_format(kPlanFormat, 1);
  PackPlanManifest m;
  m.dataset = hash_from_hex(f.text("dataset"), file, "dataset");
  m.split = f.text("split");
  m.length = f.whole("length");
  if (m.length < 1 || m.length > kMostLength)
    fail(ErrorKind::kData, "{}: field \"length\": expected 1 to {}, found {}", file, kMostLength, m.length);
  m.window_tokens = f.whole("window_tokens");
  m.documents = f.whole("documents");
  m.documents_cut = f.whole("documents_cut");
  m.documents_left_out = f.whole("documents_left_out");
  const Json& filter = f.at("filter");
  if (!filter.is_object()) f.fail_field("filter", "an object", filter);
  m.filter = filter.dump();
  const Json& shards = f.at("shards");
  if (!shards.is_array()) f.fail_field("shards", "a list", shards);
  for (const Json& entry : shards) {
    Fields s(entry, file, fmt::format("shards[{}]", m.shards.size()));
    PackShard shard{s.whole("rows"), s.whole("pieces"), s.whole("tokens"), s.file_record("file")};
    s.no_others();
    if (shard.tokens > checked_mul(shard.rows, m.length, s.path("rows")))
      fail(ErrorKind::kData, "{}: field \"{}\": {} rows of {} hold no {} tokens", file, s.path("tokens"),
           shard.rows, m.length, shard.tokens);
    m.rows = checked_add(m.rows, shard.rows, "rows of a plan");
    m.pieces = checked_add(m.pieces, shard.pieces, "pieces of a plan");
    m.tokens = checked_add(m.tokens, shard.tokens, "tokens of a plan");
    m.shards.push_back(std::move(shard));
  }
  for (const auto& [name, sum] : {std::pair{"rows", m.rows}, {"pieces", m.pieces}, {"tokens", m.tokens}})
    if (const uint64_t total = f.whole(name); total != sum)
      fail(ErrorKind::kData, "{}: field \"{}\": its shards add up to {}, found {}", file, name, sum, total);
  f.no_others();
  return m;
}

std::string default_plan_name(std::string_view split, uint64_t length) {
  return fmt::format("pack-{}-{}", length, split);
}

std::string plan_path(const Dataset& dataset, std::string_view name) {
  if (!is_plain_name(name))
    fail(ErrorKind::kUsage, "packing plan \"{}\": expected a plain name (letters, digits, '_', '-', '.')",
         name);
  return io::join(dataset.directory(), fmt::format("{}.plan.json", name));
}

PackPlanManifest open_pack_plan(io::FileSystem& fs, const Dataset& dataset, const std::string& name,
                                const std::string& split) {
  const std::string path = plan_path(dataset, name);
  if (!fs.exists(path))
    fail(ErrorKind::kUsage, "{}: no packing plan there. Make one with: stoker data pack {} --split {} ...",
         path, dataset.directory(), split);
  auto plan = PackPlanManifest::parse(io::read_text(fs, path, uint64_t{1} << 30), path);
  if (plan.dataset != dataset.hash())
    fail(ErrorKind::kUsage, "{}: made for dataset {}, but {} is dataset {}: {}", path, plan.dataset.hex(),
         dataset.directory(), dataset.hash().hex(), kAdvice);
  if (plan.split != split)
    fail(ErrorKind::kUsage, "{}: made for split {}, expected split {}", path, plan.split, split);
  const size_t shards = dataset.split(split).shards.size();
  if (plan.shards.size() != shards)
    fail(ErrorKind::kData, "{}: expected {} shards, found {}; {}", path, shards, plan.shards.size(), kAdvice);
  return plan;
}

PackPlanManifest build_pack_plan(io::FileSystem& fs, const Dataset& dataset, const std::string& split_name,
                                 const std::string& name, uint64_t length, const PackOptions& options,
                                 const std::function<void(uint64_t)>& on_documents) {
  if (length < 2 || length > kMostLength)
    fail(ErrorKind::kUsage, "rows of {} tokens: expected 2 to {}", length, kMostLength);
  const std::string path = plan_path(dataset, name);
  const auto& split = dataset.split(split_name);
  const uint64_t given =
      predicts_first_token(dataset.manifest()) ? 0 : 1;  // tokens of a document that nothing predicts
  PackPlanManifest plan;
  plan.dataset = dataset.hash();
  plan.split = split_name;
  plan.length = length;
  plan.window_tokens = std::max<uint64_t>(options.window_tokens, length);
  plan.filter = canonical_json(options.filter, "filter");
  for (const auto& shard : split.shards) {
    const auto tokens = dataset.open_shard(shard);
    std::unique_ptr<io::ReadableFile> table_file;
    DocumentTable table;
    if (options.keep) {
      if (shard.docs.name.empty())
        fail(ErrorKind::kUsage, "{}: shard {} has no document table, so its documents cannot be filtered",
             dataset.directory(), shard.bin.name);
      table_file = fs.open_read(dataset.path_of(shard.docs));
      table = DocumentTable::parse(table_file->map(), dataset.path_of(shard.docs));
      if (table.documents() != shard.documents)
        fail(ErrorKind::kData, "{}: expected {} documents, found {}", table_file->path(), shard.documents,
             table.documents());
    }
    RowsWriter rows(fs, dataset, rows_name(name, shard.bin.name), length);
    PackWindow window(length, plan.documents_cut);
    for (uint64_t d = 0; d < tokens->index().documents(); ++d) {
      const uint64_t begin = tokens->document_start(d), end = tokens->document_start(d + 1);
      if (end < begin)
        fail(ErrorKind::kData, "{}: document {} ends before it begins", tokens->index().file(), d);
      if (end - begin <= given) continue;
      if (options.keep && !options.keep(table.at(d), end - begin)) {
        ++plan.documents_left_out;
        continue;
      }
      ++plan.documents;
      window.add(begin + given, end - begin - given, d);
      if (window.tokens() >= plan.window_tokens) window.pack(rows);
    }
    window.pack(rows);
    PackShard record = rows.write(shard.tokens);
    plan.rows += record.rows;
    plan.pieces += record.pieces;
    plan.tokens += record.tokens;
    plan.shards.push_back(std::move(record));
    if (on_documents) on_documents(shard.documents);
  }
  if (plan.rows == 0)
    fail(ErrorKind::kUsage, "{}: split {} has no document that the filter keeps: nothing to pack",
         dataset.directory(), split_name);
  io::write_file_atomic(fs, path, plan.to_json());
  return plan;
}

std::vector<std::string> verify_pack_plan(io::FileSystem& fs, const Dataset& dataset,
                                          const std::string& name) {
  std::vector<std::string> faults;
  const std::string path = plan_path(dataset, name);
  try {
    const auto plan = PackPlanManifest::parse(io::read_text(fs, path, uint64_t{1} << 30), path);
    open_pack_plan(fs, dataset, name, plan.split);
    const auto& split = dataset.split(plan.split);
    for (size_t s = 0; s < plan.shards.size(); ++s) {
      try {
        const auto& record = plan.shards[s];
        const auto file = fs.open_read(dataset.path_of(record.file));
        const auto bytes = file->map();
        if (bytes.size() != record.file.bytes || hash128(bytes.data(), bytes.size()) != record.file.hash)
          fail(ErrorKind::kData, "{}: expected {} bytes of hash {}, found {} bytes: they have changed; {}",
               file->path(), record.file.bytes, record.file.hash.hex(), bytes.size(), kAdvice);
        const auto rows = PackRows::parse(bytes, file->path());
        std::vector<PackedPiece> pieces;
        for (uint64_t r = 0; r < rows.rows(); ++r) rows.row(r, pieces);
        uint64_t tokens = 0;
        for (const auto& p : pieces) tokens += p.tokens;
        if (rows.rows() != record.rows || pieces.size() != record.pieces || tokens != record.tokens ||
            rows.shard_tokens() != split.shards[s].tokens || rows.length() != plan.length)
          fail(ErrorKind::kData, "{}: it is not what {} says of it; {}", file->path(), path, kAdvice);
      } catch (const Error& e) {
        faults.push_back(e.what());
      }
    }
  } catch (const Error& e) {
    faults.push_back(e.what());
  }
  return faults;
}

}  // namespace stoker::data
