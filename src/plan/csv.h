// plan/csv.h
// Comma-separated tables with a header line, as catalogs and published data come: RFC 4180 quoting, \n or
// \r\n, a UTF-8 byte order mark skipped, empty lines skipped. Columns are found by name, so their order is
// free.
// Cost         one pass; every field is a view into `text` of the table, or unescaped into it where quotes were
//              doubled
// Errors       Data: an unclosed quote, a row with more fields than the header, a column
// that is asked for and missing,
//              a cell that is no number where one is needed; the message names table, line and column. Rows
//              with fewer fields than the header read as blank there.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::plan {

class CsvTable {
 public:
  // `name` is for messages: the file's path, say.
  CsvTable(std::string name, std::string_view text);

  size_t rows() const { return lines_.size(); }
  const std::vector<std::string>& columns() const { return columns_; }
  bool has(std::string_view column) const { return find(column).has_value(); }
  // Blank where the row ends early or the column does not exist.
  std::string_view text(size_t row, std::string_view column) const;
  std::optional<double> number(size_t row,
                               std::string_view column) const;  // blank: nullopt. Finite numbers only
  double required_number(size_t row, std::string_view column) const;
  // Blank: 0. Data unless a whole number from 0 to `most`.
  int64_t whole(size_t row, std::string_view column, int64_t most) const;
  void require_column(std::string_view column) const;
  std::string where(size_t row) const;  // "prices.csv line 7"

 private:
  std::optional<size_t> find(std::string_view column) const;
  std::string name_;
  std::vector<std::string> columns_;
  std::vector<std::vector<std::string>> cells_;
  std::vector<size_t> lines_;
};

}  // namespace stoker::plan
