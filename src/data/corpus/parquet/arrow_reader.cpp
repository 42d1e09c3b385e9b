// Built when there is an Arrow (room.cmake).
#include <arrow/config.h>
#include <arrow/io/interfaces.h>
#include <arrow/memory_pool.h>
#include <arrow/result.h>
#include <parquet/api/reader.h>

#include <deque>
#include <exception>

#include "base/error.h"
#include "data/corpus/parquet_reader.h"

namespace stoker::corpus {
namespace {

// Arrow reads through our door to storage.
class FileAdapter : public arrow::io::RandomAccessFile {
 public:
  explicit FileAdapter(std::unique_ptr<io::ReadableFile> file, arrow::MemoryPool* pool)
      : file_(std::move(file)), pool_(pool) {}
  arrow::Status Close() override {
    closed_ = true;
    return arrow::Status::OK();
  }
  bool closed() const override { return closed_; }
  arrow::Result<int64_t> Tell() const override { return at_; }
  arrow::Status Seek(int64_t position) override {
    at_ = position;
    return arrow::Status::OK();
  }
  arrow::Result<int64_t> GetSize() override { return static_cast<int64_t>(file_->size()); }
  arrow::Result<int64_t> Read(int64_t bytes, void* to) override {
    ARROW_ASSIGN_OR_RAISE(const int64_t got, ReadAt(at_, bytes, to));
    at_ += got;
    return got;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(int64_t bytes) override {
    ARROW_ASSIGN_OR_RAISE(auto buffer, ReadAt(at_, bytes));
    at_ += buffer->size();
    return buffer;
  }
  arrow::Result<int64_t> ReadAt(int64_t position, int64_t bytes, void* to) override {
    const auto size = static_cast<int64_t>(file_->size());
    if (position < 0 || bytes < 0)
      return arrow::Status::Invalid("read at ", position, " of ", bytes, " bytes");
    const int64_t n = position >= size ? 0 : std::min(bytes, size - position);
    try {
      if (n > 0) file_->read_at(static_cast<uint64_t>(position), to, static_cast<size_t>(n));
    } catch (const Error& e) {
      if (e.kind() == ErrorKind::kStorage || e.kind() == ErrorKind::kCancelled)
        trouble_ = std::current_exception();
      return arrow::Status::IOError(e.what());
    }
    return n;
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(int64_t position, int64_t bytes) override {
    const auto size = static_cast<int64_t>(file_->size());
    if (position < 0 || bytes < 0 || position > size)
      return arrow::Status::Invalid("read at ", position, " of ", bytes, " bytes");
    ARROW_ASSIGN_OR_RAISE(auto buffer,
                          arrow::AllocateResizableBuffer(std::min(bytes, size - position), pool_));
    ARROW_ASSIGN_OR_RAISE(const int64_t got, ReadAt(position, buffer->size(), buffer->mutable_data()));
    ARROW_RETURN_NOT_OK(buffer->Resize(got, false));
    return std::shared_ptr<arrow::Buffer>(std::move(buffer));
  }
  // What the disk did: no property of the data.
  std::exception_ptr trouble() const { return trouble_; }

 private:
  std::unique_ptr<io::ReadableFile> file_;
  arrow::MemoryPool* pool_;
  int64_t at_ = 0;
  bool closed_ = false;
  std::exception_ptr trouble_;
};

// One column of byte arrays, page by page over all row groups.
class StringColumn {
 public:
  StringColumn(parquet::ParquetFileReader& file, int column, uint64_t longest)
      : file_(file), column_(column), longest_(longest) {
    optional_ = file.metadata()->schema()->Column(column)->max_definition_level() > 0;
  }
  enum class Found { kText, kNull, kTooLong, kEnd };
  Found next(std::string& text) {
    while (at_ == rows_)
      if (!refill()) return Found::kEnd;
    const int64_t row = at_++;
    text.clear();
    if (optional_ && levels_[row] == 0) return Found::kNull;
    const parquet::ByteArray& value = values_[value_++];
    if (value.len > longest_) return Found::kTooLong;
    text.assign(reinterpret_cast<const char*>(value.ptr), value.len);
    return Found::kText;
  }

 private:
  static constexpr int64_t kRows = 256;
  bool refill() {
    at_ = rows_ = value_ = 0;
    while (!reader_ || !reader_->HasNext()) {
      if (group_ == file_.metadata()->num_row_groups()) return false;
      row_group_ = file_.RowGroup(group_++);
      reader_ = std::dynamic_pointer_cast<parquet::ByteArrayReader>(row_group_->Column(column_));
      if (!reader_) throw parquet::ParquetException("the column's type differs between row groups");
    }
    int64_t read = 0;
    // A batch never crosses a page, so the values stay valid until the next one is asked for.
    rows_ = reader_->ReadBatch(kRows, levels_, nullptr, values_, &read);
    if (rows_ == 0) throw parquet::ParquetException("a page holds fewer rows than it says");
    int64_t present = optional_ ? 0 : rows_;
    for (int64_t i = 0; optional_ && i < rows_; ++i) present += levels_[i] != 0;
    if (present != read) throw parquet::ParquetException("a page holds other values than it says");
    return true;
  }

  parquet::ParquetFileReader& file_;
  int column_, group_ = 0;
  uint64_t longest_;
  bool optional_ = false;
  std::shared_ptr<parquet::RowGroupReader> row_group_;
  std::shared_ptr<parquet::ByteArrayReader> reader_;
  int16_t levels_[kRows];
  parquet::ByteArray values_[kRows];
  int64_t at_ = 0, rows_ = 0, value_ = 0;
};

class ParquetReader : public RecordReader {
 public:
  ParquetReader(io::FileSystem& fs, std::string path, const RecordOptions& options)
      : fs_(fs),
        path_(std::move(path)),
        options_(options),
        pool_(arrow::system_memory_pool(),
              static_cast<int64_t>(4 * options.max_record_bytes + (uint64_t{64} << 20))) {}

  bool next(RawRecord& record) override {
    if (done_) return false;
    record = {};
    record.number = number_;
    try {
      if (!file_) open();
      const auto found = text_->next(record.bytes);
      std::string name;
      if (name_ && found != StringColumn::Found::kEnd && name_->next(name) == StringColumn::Found::kText)
        record.name = std::move(name);
      record.charset = "utf-8";
      switch (found) {
        case StringColumn::Found::kEnd:
          done_ = true;
          return false;
        case StringColumn::Found::kNull:
          record.bad = "the text is null";
          break;
        case StringColumn::Found::kTooLong:
          record.bad = fmt::format("longer than {} bytes", options_.max_record_bytes);
          break;
        case StringColumn::Found::kText:
          break;
      }
      ++number_;
      return true;
    } catch (const std::exception& e) {
      if (adapter_ && adapter_->trouble()) std::rethrow_exception(adapter_->trouble());
      const auto* own = dynamic_cast<const Error*>(&e);
      if (own && (own->kind() == ErrorKind::kStorage || own->kind() == ErrorKind::kCancelled)) throw;
      record.bytes.clear();
      record.bad = own ? std::string(e.what()) : fmt::format("Parquet: {}", e.what());
      done_ = true;
      return true;
    }
  }

 private:
  void open() {
    adapter_ = std::make_shared<FileAdapter>(fs_.open_read(path_, io::Access::kNormal), &pool_);
    parquet::ReaderProperties properties(&pool_);
    properties.enable_buffered_stream();  // pages, not whole column chunks
    properties.set_buffer_size(1 << 20);
    properties.set_thrift_container_size_limit(1000000);
    file_ = parquet::ParquetFileReader::Open(adapter_, properties);
    const auto* schema = file_->metadata()->schema();
    std::string names;
    int text = -1, name = -1;
    for (int i = 0; i < schema->num_columns(); ++i) {
      const std::string column = schema->Column(i)->path()->ToDotString();
      if (i < 20) names += (i ? ", " : "") + column;
      if (column == options_.text_field) text = i;
      if (column == "url" || (column == "id" && name < 0)) name = is_string(i) ? i : name;
    }
    if (text < 0) fail(ErrorKind::kData, "no column '{}'; there are {}", options_.text_field, names);
    if (!is_string(text)) fail(ErrorKind::kData, "column '{}' holds no strings", options_.text_field);
    text_ = std::make_unique<StringColumn>(*file_, text, options_.max_record_bytes);
    if (name >= 0 && name != text) name_ = std::make_unique<StringColumn>(*file_, name, 4096);
  }

  bool is_string(int column) const {
    const auto* descriptor = file_->metadata()->schema()->Column(column);
    return descriptor->physical_type() == parquet::Type::BYTE_ARRAY &&
           descriptor->max_repetition_level() == 0;
  }

  io::FileSystem& fs_;
  std::string path_;
  RecordOptions options_;
  arrow::CappedMemoryPool pool_;
  std::shared_ptr<FileAdapter> adapter_;
  std::unique_ptr<parquet::ParquetFileReader> file_;
  std::unique_ptr<StringColumn> text_, name_;
  uint64_t number_ = 0;
  bool done_ = false;
};

}  // namespace

bool parquet_built_in() { return true; }

std::string parquet_support() {
  return fmt::format("built in (Arrow {})", arrow::GetBuildInfo().version_string);
}

std::unique_ptr<RecordReader> make_parquet_reader(io::FileSystem& fs, const std::string& path,
                                                  const RecordOptions& options) {
  return std::make_unique<ParquetReader>(fs, path, options);
}

}  // namespace stoker::corpus
