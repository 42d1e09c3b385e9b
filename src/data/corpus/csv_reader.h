// data/corpus/csv_reader.h
// RFC 4180 rows: quoted fields may hold delimiters, line feeds and doubled quotes. The first row names the columns; the
// record's content is the column options.text_field, its name the column "url" or "id" when there is one.
// Delimiter     options.delimiter, or the most frequent of , ; tab | in the header
// Bad           a row with too few columns, an unclosed quote at the end, a row above the limit. No such column: one bad
//               record for the file
#pragma once
#include <string>
#include <vector>

#include "data/corpus/factory_records.h"

namespace stoker::corpus {

class CsvReader : public RecordReader {
 public:
  CsvReader(ByteSource source, const RecordOptions& options);
  bool next(RawRecord& record) override;

 private:
  enum class Row { kGood, kTooLong, kUnclosed, kEnd };
  Row read_row(std::vector<std::string>& fields);
  bool start(RawRecord& record);
  ByteReader in_;
  RecordOptions options_;
  std::vector<std::string> fields_;
  size_t columns_ = 0;
  std::ptrdiff_t text_ = -1, name_ = -1;
  uint64_t number_ = 0;
  bool started_ = false, finished_ = false;
};

}  // namespace stoker::corpus
