#include "data/corpus/factory_inputs.h"

#include <simdjson.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "data/corpus/document_source.h"
#include "data/corpus/html_extract.h"
#include "data/corpus/parquet_reader.h"
#include "data/corpus/unicode_encoding.h"
#include "io/object_store.h"

namespace stoker::corpus {
namespace {

// What a record takes beside its text while its chunk is worked on: itself, its document, its row in every column (a signature
// alone has 456 bytes). Counted as part of the chunk, so that a chunk of tiny documents takes no more than another.
constexpr uint64_t kRecordBytes = 1024;

namespace stdfs = std::filesystem;
constexpr uint64_t kLargeFile = uint64_t{1} << 20;  // stored bytes: read in pieces, alone
constexpr uint64_t kSmallestBatch = uint64_t{256}
                                    << 10;  // stored bytes before a batch may end by a name's hash

// The format is the recipe's, or the name's; in folders others are left out and counted.
void add_found(InputList& list, std::vector<InputFile>& files, const SourceRecipe& recipe, InputFile file,
               bool named) {
  file.format = recipe.format == "auto" ? record_format_of_name(file.name) : recipe.format;
  if (file.format.empty()) {
    if (!named) {
      ++list.left_out;
      return;
    }
    file.format = "text";  // whoever names a file means it
  }
  if (file.format == "parquet" && !parquet_built_in())
    fail(ErrorKind::kUsage,
         "source '{}': {} is Parquet, which is {}. Or convert it to JSON lines (docs/data-factory.md)",
         recipe.name, file.path, parquet_support());
  list.bytes += file.bytes;
  files.push_back(std::move(file));
}

void add_file(InputList& list, std::vector<InputFile>& files, uint32_t source, const SourceRecipe& recipe,
              const std::string& path, const std::string& name, bool named) {
  struct stat info {};
  // What is too long a path for the system is found out when it is opened, and goes to quarantine.
  if (::stat(path.c_str(), &info) != 0 && errno != ENAMETOOLONG) {
    if (!named && recipe.format == "auto" && record_format_of_name(name).empty()) {
      ++list.left_out;
      return;
    }
    fail(ErrorKind::kData,
         "source '{}': cannot look at {}: {}{}. Mend or remove it, or name the inputs by a glob without it",
         recipe.name, path, std::generic_category().message(errno), leads_nowhere(path) ? " (a link)" : "");
  }
  InputFile file;
  file.source = source;
  file.path = path;
  file.name = name;
  file.bytes = static_cast<uint64_t>(info.st_size);
  file.modified_ns = static_cast<int64_t>(info.st_mtim.tv_sec) * 1000000000 + info.st_mtim.tv_nsec;
  file.inode = info.st_ino;
  add_found(list, files, recipe, std::move(file), named);
}

// What lies behind a URL: an object, or all objects below a prefix. Hidden names are left out as in folders.
void add_far(io::FileSystem& fs, InputList& list, std::vector<InputFile>& files, uint32_t source,
             const SourceRecipe& recipe, const std::string& url, const std::string& below) {
  const io::FileInfo info = fs.info(url);
  if (info.directory) {
    for (const auto& name : fs.list(url))
      if (!name.starts_with('.'))
        add_far(fs, list, files, source, recipe, io::join(url, name),
                below.empty() ? name : below + "/" + name);
    return;
  }
  InputFile file;
  file.source = source;
  file.path = url;
  file.name = below.empty() ? io::name_of(url) : below;
  file.bytes = info.size;
  file.modified_ns = static_cast<int64_t>(info.modified_unix_s) * 1000000000;
  add_found(list, files, recipe, std::move(file), below.empty());
}

void add_path(io::FileSystem& fs, InputList& list, std::vector<InputFile>& files, uint32_t source,
              const SourceRecipe& recipe, const std::string& path) {
  if (io::is_url(path)) {
    if (!fs.exists(path)) fail(ErrorKind::kUsage, "source '{}': nothing at {}", recipe.name, path);
    return add_far(fs, list, files, source, recipe, path, "");
  }
  std::error_code error;
  if (stdfs::is_directory(path, error)) {
    std::vector<std::string> found;
    std::string folder = path;  // that is being listed
    auto walk = stdfs::recursive_directory_iterator(path, stdfs::directory_options::none, error);
    for (const auto end = stdfs::recursive_directory_iterator(); walk != end; walk.increment(error)) {
      const std::string leaf = walk->path().filename().string();
      std::error_code gone;
      const bool is_folder = walk->is_directory(gone);
      if (leaf.starts_with('.')) {
        if (is_folder) walk.disable_recursion_pending();
        continue;
      }
      if (is_folder) folder = walk->path().string();
      else if (walk->is_regular_file(gone) || gone || leads_nowhere(walk->path().string()))
        found.push_back(walk->path().string());
    }
    // An error ends the walk.
    if (error)
      fail(ErrorKind::kUsage, "source '{}': cannot list {}: {}", recipe.name, folder, error.message());
    std::sort(found.begin(), found.end());
    for (const auto& file : found)
      add_file(list, files, source, recipe, file, stdfs::path(file).lexically_relative(path).string(), false);
    return;
  }
  if (stdfs::is_regular_file(path, error)) {
    add_file(list, files, source, recipe, path, stdfs::path(path).filename().string(), true);
    return;
  }
  const auto matches = has_glob(path) ? match_files(fs, path) : std::vector<MatchedFile>();
  if (matches.empty())
    fail(ErrorKind::kUsage,
         "source '{}': nothing at {}: expected a file, a folder or a pattern that matches some", recipe.name,
         path);
  for (const auto& match : matches)
    add_file(list, files, source, recipe, match.path, match.name, match.named);
}

// The text field of an object, and its url or id as a name. Of a repeated key the last counts.
void take_fields(const simdjson::dom::object& object, const std::string& field, ChunkDocument& out) {
  bool found = false;
  std::string_view url, id;
  for (const auto [key, value] : object) {
    std::string_view text;
    const bool is_string = value.get(text) == simdjson::SUCCESS;
    if (key == field) {
      found = true;
      out.bad = is_string ? "" : "field '" + field + "' is no string";
      out.text = is_string ? std::string(text) : "";
    }
    if (key == "url" && is_string) url = text;
    if (key == "id" && is_string) id = text;
  }
  if (!found) out.bad = "no field '" + field + "'";
  if (out.name.empty()) out.name = url.empty() ? id : url;
}

// The same through the slower parser, which takes numbers of any size.
void take_fields_of(const nlohmann::json& json, const std::string& field, ChunkDocument& out) {
  const auto found = json.find(field);
  if (found == json.end()) out.bad = "no field '" + field + "'";
  else if (!found->is_string()) out.bad = "field '" + field + "' is no string";
  else out.text = found->get<std::string>();
  for (const char* key : {"url", "id"})
    if (const auto name = json.find(key); out.name.empty() && name != json.end() && name->is_string())
      out.name = name->get<std::string>();
}

void open_json(std::string& bytes, const std::string& field, ChunkDocument& out) {
  static thread_local simdjson::dom::parser parser;
  const size_t size = bytes.size();
  bytes.reserve(size + simdjson::SIMDJSON_PADDING);
  simdjson::dom::element root;
  const auto error = parser.parse(bytes.data(), size, false).get(root);
  if (error == simdjson::NUMBER_ERROR || error == simdjson::NUMBER_OUT_OF_RANGE) {
    const auto json = nlohmann::json::parse(bytes, nullptr, false);
    if (json.is_discarded()) out.bad = "not JSON";
    else if (!json.is_object()) out.bad = "not a JSON object";
    else take_fields_of(json, field, out);
    return;
  }
  simdjson::dom::object object;
  if (error) out.bad = "not JSON";
  else if (root.get(object)) out.bad = "not a JSON object";
  else take_fields(object, field, out);
  // A parser keeps room for the longest record it has seen.
  if (size > size_t{16} << 20) parser = simdjson::dom::parser();
}

}  // namespace

InputList list_inputs(io::FileSystem& fs, const Recipe& recipe) {
  InputList list;
  for (uint32_t s = 0; s < recipe.sources.size(); ++s) {
    std::vector<InputFile> files;
    const uint64_t left_out_before = list.left_out;
    for (const auto& path : recipe.sources[s].paths) add_path(fs, list, files, s, recipe.sources[s], path);
    if (files.empty())
      fail(ErrorKind::kUsage,
           "source '{}': {}: expected names that end in .txt .md .rst .html .jsonl .csv .warc .tar or "
           ".parquet (also .gz .zst .xz), or format = \"text\" (or another) for all of them",
           recipe.sources[s].name,
           list.left_out == left_out_before
               ? fmt::format("there is no file in {}", fmt::join(recipe.sources[s].paths, ", "))
               : fmt::format("none of {} files says by its name what it holds",
                             list.left_out - left_out_before));
    list.files += files.size();
    InputBatch batch;
    uint64_t bytes = 0;
    auto close = [&] {
      if (!batch.files.empty()) list.batches.push_back(std::move(batch));
      batch = {};
      bytes = 0;
    };
    for (auto& file : files) {
      if (file.bytes >= kLargeFile) {
        close();
        InputBatch alone;
        alone.large = true;
        alone.files.push_back(std::move(file));
        list.batches.push_back(std::move(alone));
        continue;
      }
      bytes += file.bytes;
      const bool cut_here = hash64(file.name) % 16 == 0;
      batch.files.push_back(std::move(file));
      if (bytes >= recipe.chunk_bytes || (bytes >= kSmallestBatch && cut_here)) close();
    }
    close();
  }
  return list;
}

std::string open_key(const SourceRecipe& source) {
  return fmt::format("open/4 {} {}", source.text_field, source.main_content);
}

Hash128 batch_key(const Recipe& recipe, const InputBatch& batch) {
  KeyBuilder key("batch/1");
  const SourceRecipe& source = recipe.sources[batch.files.front().source];
  key.add(source.name)
      .add(open_key(source))
      .add_number(source.max_document_bytes)
      .add_number(recipe.chunk_bytes);
  for (const auto& file : batch.files)
    key.add(file.path)
        .add(file.name)
        .add(file.format)
        .add_number(file.bytes)
        .add_number(static_cast<uint64_t>(file.modified_ns))
        .add_number(file.inode);
  return key.key();
}

BatchReader::BatchReader(io::FileSystem& fs, const Recipe& recipe, const InputBatch& batch)
    : fs_(fs), recipe_(recipe), batch_(batch) {}
BatchReader::~BatchReader() = default;

// Remembers that a file could not be opened: it becomes a bad record of this run, not the end.
template <typename Open>
auto BatchReader::opening(Open&& open) {
  try {
    return open();
  } catch (const Error&) {
    unopened_ = true;
    throw;
  }
}

std::unique_ptr<RecordReader> BatchReader::open(const InputFile& file) {
  const SourceRecipe& source = recipe_.sources[file.source];
  RecordOptions options;
  options.max_record_bytes = source.max_document_bytes;
  options.text_field = source.text_field;
  if (file.format == "parquet") {
    try {
      opening([&] { return fs_.open_read(file.path); });
    } catch (const Error&) {  // the reader says it again, as a record
    }
    return make_parquet_reader(fs_, file.path, options);
  }
  // Opened on the first read, whose errors are the record's.
  return make_record_reader(
      file.format,
      [this, &file](char* to, size_t size) {
        if (!input_) input_ = opening([&] { return std::make_unique<CompressedInput>(fs_, file.path); });
        return input_->read(to, size);
      },
      options);
}

std::optional<BatchReader::Piece> BatchReader::next() {
  Piece piece;
  while (file_ < batch_.files.size()) {
    const InputFile& file = batch_.files[file_];
    if (!reader_) reader_ = open(file);
    RawRecord record;
    if (!reader_->next(record)) {
      reader_.reset();
      input_.reset();
      stored_done_ += file.bytes;
      ++file_;
      continue;
    }
    piece.bytes += record.bytes.size() + record.name.size() + kRecordBytes;
    piece.files.push_back(file_);
    piece.records.push_back(std::move(record));
    if (piece.bytes >= recipe_.chunk_bytes) break;
  }
  if (piece.records.empty()) return std::nullopt;
  piece.passing = std::exchange(unopened_, false);
  return piece;
}

ChunkDocument open_record(RawRecord record, uint32_t file, const SourceRecipe& source) {
  ChunkDocument out;
  out.file = file;
  out.record = record.number;
  // Names and what is wrong with them come from outside and go into JSON.
  out.name = decode_to_utf8(record.name, {"UTF-8", "declared"}).text;
  out.bad = decode_to_utf8(record.bad, {"UTF-8", "declared"}).text;
  if (!out.bad.empty()) return out;
  if (record.kind == RecordKind::kJson) {
    open_json(record.bytes, source.text_field, out);
    return out;
  }
  const bool html = record.kind == RecordKind::kHtml;
  const auto encoding = detect_encoding(record.bytes, record.charset, html);
  Decoded decoded = decode_to_utf8(record.bytes, encoding);
  if (std::count(decoded.text.begin(), decoded.text.end(), '\0') > 0 && !html) {
    out.bad = "holds NUL bytes: not a text";
    return out;
  }
  if (!html) {
    out.text = std::move(decoded.text);
    return out;
  }
  std::string().swap(record.bytes);
  HtmlOptions options;
  options.main_content = source.main_content;
  auto page = extract_html(decoded.text, options);
  if (page.ok()) out.text = std::move(page.value().text);
  else out.bad = page.error().what();
  return out;
}

}  // namespace stoker::corpus
