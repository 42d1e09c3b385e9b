#include "data/corpus/export_dataset.h"
#include "data/corpus/tar_reader.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "base/stop.h"
#include "data/shard/document_table.h"
#include "data/tokenizer/tokenizer.h"
#include "io/atomic_write.h"

namespace stoker::corpus {
namespace {
using Json = nlohmann::json;
constexpr uint64_t kMostTarMember = 077777777777;  // eleven octal digits
constexpr uint64_t kMostMdsShard = UINT32_MAX;

using OnDocument =
    std::function<void(uint64_t number, const std::string& text, const data::DocumentOrigin& origin)>;

void each_document(io::FileSystem& fs, const data::Dataset& dataset, const data::SplitRecord& split,
                   const OnDocument& on_document) {
  const auto tokenizer = tokenizer::Tokenizer::from_json(
      io::read_text(fs, dataset.path_of(dataset.manifest().tokenizer.file), 1 << 30));
  const auto& separators = dataset.manifest().tokenizer;
  Progress progress("exporting", split.text_bytes);
  uint64_t number = 0;
  std::vector<int32_t> tokens;
  for (const auto& shard : split.shards) {
    const auto file = dataset.open_shard(shard);
    std::unique_ptr<io::ReadableFile> docs;
    data::DocumentTable table;
    if (!shard.docs.name.empty()) {
      docs = fs.open_read(dataset.path_of(shard.docs));
      table = data::DocumentTable::parse(docs->map(), dataset.path_of(shard.docs));
    }
    for (uint64_t d = 0; d < file->index().documents(); ++d) {
      if (stop_requested()) fail(ErrorKind::kCancelled, "stopped on request; nothing was written");
      const uint64_t begin = file->document_start(d), end = file->document_start(d + 1);
      if (end < begin || end > file->tokens())
        fail(ErrorKind::kData, "{}: document {} ends before it begins", file->index().file(), d);
      tokens.resize(end - begin);
      file->read(begin, tokens);
      std::span<const int32_t> text_tokens(tokens);
      if (separators.bos >= 0 && !text_tokens.empty() && text_tokens.front() == separators.bos)
        text_tokens = text_tokens.subspan(1);
      if (separators.eod >= 0 && !text_tokens.empty() && text_tokens.back() == separators.eod)
        text_tokens = text_tokens.first(text_tokens.size() - 1);
      const std::string text = tokenizer.decode(text_tokens);
      on_document(number++, text, d < table.documents() ? table.at(d) : data::DocumentOrigin{});
      progress.add(text.size());
    }
  }
}

// A buffer in front of a file that is written in many small pieces.
class Buffered {
 public:
  explicit Buffered(io::WritableFile& file) : file_(file) {}
  void add(std::string_view bytes) {
    buffer_ += bytes;
    if (buffer_.size() >= (size_t{1} << 20)) flush();
  }
  void flush() {
    file_.append(buffer_);
    buffer_.clear();
  }

 private:
  io::WritableFile& file_;
  std::string buffer_;
};

void refuse_existing(io::FileSystem& fs, const std::string& out) {
  if (fs.exists(out))
    fail(ErrorKind::kUsage, "{} exists already. Choose another --out or remove it first", out);
}

std::string tar_header(const std::string& name, uint64_t size) {
  std::string h(kTarBlock, '\0');
  auto put = [&](size_t at, const std::string& text) {
    std::memcpy(h.data() + at, text.data(), text.size());
  };
  put(0, name);
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  put(124, fmt::format("{:011o}", size));
  put(136, "00000000000");  // no time: the same documents give the same bytes
  put(148, "        ");
  put(156, "0");
  put(257, std::string("ustar\0"
                       "00",
                       8));
  unsigned sum = 0;
  for (const char c : h) sum += static_cast<uint8_t>(c);
  put(148, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  return h;
}

class MdsWriter {
 public:
  MdsWriter(io::FileSystem& fs, std::string directory, uint64_t shard_bytes)
      : fs_(fs), directory_(std::move(directory)), shard_bytes_(std::min(shard_bytes, kMostMdsShard)) {}
  void add(const std::string& text) {
    const uint64_t sample = 4 + text.size();
    if (!sizes_.empty() && bytes_after(sample) > shard_bytes_) close();
    if (bytes_after(sample) > kMostMdsShard)
      fail(ErrorKind::kUsage, "a document of {} bytes does not fit in an MDS shard (4 GiB)", text.size());
    const auto length = static_cast<uint32_t>(text.size());
    samples_.append(reinterpret_cast<const char*>(&length), 4);
    samples_ += text;
    sizes_.push_back(static_cast<uint32_t>(sample));
  }
  void finish() {
    close();
    write("index.json", Json{{"version", 2}, {"shards", shards_}}.dump());
  }

 private:
  Json configuration() const {
    return {{"column_encodings", {"str"}},
            {"column_names", {"text"}},
            {"column_sizes", {nullptr}},
            {"compression", nullptr},
            {"format", "mds"},
            {"hashes", Json::array()},
            {"size_limit", shard_bytes_},
            {"version", 2}};
  }
  uint64_t bytes_after(uint64_t sample) const {
    return 4 + 4 * (sizes_.size() + 2) + configuration().dump().size() + samples_.size() + sample;
  }
  void write(const std::string& name, std::string_view contents) {
    const auto file = fs_.create(io::join(directory_, name));
    file->append(contents);
    file->sync();
    file->close();
  }
  void close() {
    if (sizes_.empty()) return;
    const std::string configuration_text = configuration().dump();
    std::string head;
    auto put = [&](uint32_t v) { head.append(reinterpret_cast<const char*>(&v), 4); };
    put(static_cast<uint32_t>(sizes_.size()));
    auto at = static_cast<uint32_t>(4 + 4 * (sizes_.size() + 1) + configuration_text.size());
    put(at);
    for (const uint32_t size : sizes_) put(at += size);
    const std::string name = fmt::format("shard.{:05}.mds", shards_.size());
    write(name, head + configuration_text + samples_);
    Json record = configuration();
    record["samples"] = sizes_.size();
    record["raw_data"] = {{"basename", name}, {"bytes", at}, {"hashes", Json::object()}};
    record["zip_data"] = nullptr;
    shards_.push_back(std::move(record));
    sizes_.clear();
    samples_.clear();
  }
  io::FileSystem& fs_;
  std::string directory_;
  uint64_t shard_bytes_;
  std::vector<uint32_t> sizes_;
  std::string samples_;
  Json shards_ = Json::array();
};
}  // namespace

ExportFormat export_format_from_string(std::string_view name) {
  if (name == "jsonl") return ExportFormat::kJsonLines;
  if (name == "tar") return ExportFormat::kTar;
  if (name == "mds") return ExportFormat::kMds;
  fail(ErrorKind::kUsage, "export: expected jsonl, tar or mds, found \"{}\"", name);
}

uint64_t export_dataset(io::FileSystem& fs, const data::Dataset& dataset, const std::string& out,
                        const ExportOptions& options) {
  refuse_existing(fs, out);
  const auto& split = dataset.split(options.split);
  uint64_t count = 0;
  if (options.format == ExportFormat::kMds) {
    io::AtomicDirectory directory(fs, out);
    MdsWriter writer(fs, directory.staging(), options.shard_bytes);
    each_document(fs, dataset, split,
                  [&](uint64_t, const std::string& text, const auto&) { writer.add(text), ++count; });
    writer.finish();
    directory.commit();
    return count;
  }
  io::AtomicFile file(fs, out);
  Buffered buffered(file.file());
  each_document(
      fs, dataset, split, [&](uint64_t number, const std::string& text, const data::DocumentOrigin& origin) {
        ++count;
        if (options.format == ExportFormat::kJsonLines) {
          buffered.add(Json{{"text", text}, {"source", origin.source}, {"record", origin.record}}.dump() +
                       "\n");
          return;
        }
        if (text.size() > kMostTarMember)
          fail(ErrorKind::kUsage, "a document of {} bytes does not fit in a tar member", text.size());
        buffered.add(tar_header(fmt::format("{:012}.txt", number), text.size()));
        buffered.add(text);
        buffered.add(std::string((kTarBlock - text.size() % kTarBlock) % kTarBlock, '\0'));
      });
  if (options.format == ExportFormat::kTar) buffered.add(std::string(2 * kTarBlock, '\0'));
  buffered.flush();
  file.commit();
  return count;
}

}  // namespace stoker::corpus
