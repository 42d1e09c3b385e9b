#include "data/corpus/csv_reader.h"

#include <algorithm>

#include "base/error.h"

namespace stoker::corpus {

CsvReader::CsvReader(ByteSource source, const RecordOptions& options)
    : in_(std::move(source)), options_(options) {}

// Fields beyond max_record_bytes in all are read and dropped.
CsvReader::Row CsvReader::read_row(std::vector<std::string>& fields) {
  fields.clear();
  if (in_.at_end()) return Row::kEnd;
  std::string field;
  uint64_t held = 0;
  bool quoted = false, was_quoted = false, too_long = false;
  auto close = [&] {
    if (fields.size() < 10000) fields.push_back(std::move(field));
    else too_long = true;
    field.clear();
    was_quoted = false;
  };
  auto put = [&](char c) {
    if (too_long) return;
    if (++held > options_.max_record_bytes) {
      too_long = true;
      std::string().swap(field);
      return;
    }
    field += c;
  };
  char c;
  while (in_.read(&c, 1) == 1) {
    if (quoted) {
      if (c != '"') {
        put(c);
      } else if (in_.peek() == '"') {
        in_.read(&c, 1);
        put('"');
      } else {
        quoted = false;
      }
    } else if (c == '"' && field.empty() && !was_quoted) {
      quoted = was_quoted = true;
    } else if (c == options_.delimiter) {
      close();
    } else if (c == '\n') {
      break;
    } else if (c == '\r' && (in_.peek() == '\n' || in_.peek() < 0)) {
      continue;
    } else {
      put(c);
    }
  }
  close();
  if (quoted) return Row::kUnclosed;
  return too_long ? Row::kTooLong : Row::kGood;
}

bool CsvReader::start(RawRecord& record) {
  started_ = true;
  auto refuse = [&](std::string why) {
    finished_ = true;
    record.bad = std::move(why);
    return true;
  };
  if (!in_.failure().empty()) return refuse(in_.failure());
  std::string header;
  // The header is looked at as a line to find the delimiter, then split by it.
  bool too_long = false;
  if (!in_.line(header, 1 << 20, too_long)) {
    finished_ = true;
    if (in_.failure().empty()) return false;
    return refuse(in_.failure());
  }
  if (too_long) return refuse("the header line is longer than 1 MiB: this is no CSV");
  if (header.starts_with("\xEF\xBB\xBF")) header.erase(0, 3);
  if (options_.delimiter == 0) {
    options_.delimiter = ',';
    std::ptrdiff_t most = 0;
    for (const char c : {',', ';', '\t', '|'}) {
      const auto count = std::count(header.begin(), header.end(), c);
      if (count > most) most = count, options_.delimiter = c;
    }
  }
  std::vector<std::string> names(1);
  bool quoted = false;
  for (const char c : header) {
    if (c == '"') quoted = !quoted;
    else if (c == options_.delimiter && !quoted) names.emplace_back();
    else if (c != '\r') names.back() += c;
  }
  columns_ = names.size();
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == options_.text_field) text_ = static_cast<std::ptrdiff_t>(i);
    if (name_ < 0 && (names[i] == "url" || names[i] == "id")) name_ = static_cast<std::ptrdiff_t>(i);
  }
  if (text_ < 0)
    return refuse(fmt::format("no column '{}': the header has {} columns, first '{}'", options_.text_field,
                              columns_, names[0].substr(0, 40)));
  return false;
}

bool CsvReader::next(RawRecord& record) {
  record = {};
  if (!started_ && start(record)) return true;
  while (!finished_) {
    const Row row = read_row(fields_);
    record.number = number_;
    if (!in_.failure().empty()) {
      finished_ = true;
      record.bad = in_.failure();
      return true;
    }
    if (row == Row::kEnd) break;
    ++number_;
    if (row == Row::kUnclosed) {
      finished_ = true;
      record.bad = "a quote is never closed";
      return true;
    }
    if (row == Row::kTooLong) {
      record.bad = fmt::format("row longer than {} bytes", options_.max_record_bytes);
      return true;
    }
    if (fields_.size() == 1 && fields_[0].empty()) continue;  // an empty line
    if (fields_.size() != columns_) {
      record.bad = fmt::format("row of {} fields, the header has {}", fields_.size(), columns_);
      return true;
    }
    record.bytes = std::move(fields_[static_cast<size_t>(text_)]);
    if (name_ >= 0) record.name = std::move(fields_[static_cast<size_t>(name_)]);
    return true;
  }
  return false;
}

}  // namespace stoker::corpus
