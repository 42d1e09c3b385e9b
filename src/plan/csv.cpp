#include "plan/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"

namespace stoker::plan {
namespace {

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// Reads one record that starts at `at` (moved past it); `line` counts the lines passed.
std::vector<std::string> read_record(const std::string& name, std::string_view text, size_t& at,
                                     size_t& line) {
  const size_t first_line = line;
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\n') ++line;
    if (quoted) {
      if (c != '"') fields.back() += c;
      else if (at + 1 < text.size() && text[at + 1] == '"') fields.back() += text[++at];
      else quoted = false;
    } else if (c == '"' && trimmed(fields.back()).empty()) {
      fields.back().clear();
      quoted = true;
    } else if (c == ',') {
      fields.emplace_back();
    } else if (c == '\n') {
      ++at;
      return fields;
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  if (quoted) fail(ErrorKind::kData, "{} line {}: a quote opens and never closes", name, first_line);
  return fields;
}

}  // namespace

CsvTable::CsvTable(std::string name, std::string_view text) : name_(std::move(name)) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  size_t at = 0, line = 1;
  while (at < text.size()) {
    const size_t record_line = line;
    std::vector<std::string> fields = read_record(name_, text, at, line);
    if (fields.size() == 1 && trimmed(fields[0]).empty()) continue;
    for (std::string& field : fields) field = std::string(trimmed(field));
    if (columns_.empty()) {
      columns_ = std::move(fields);
      continue;
    }
    if (fields.size() > columns_.size())
      fail(ErrorKind::kData,
           "{} line {}: {} fields where the header has {}. Quote fields that contain a comma.", name_,
           record_line, fields.size(), columns_.size());
    cells_.push_back(std::move(fields));
    lines_.push_back(record_line);
  }
  if (columns_.empty()) fail(ErrorKind::kData, "{}: expected a header line, found an empty file", name_);
}

std::optional<size_t> CsvTable::find(std::string_view column) const {
  const auto it = std::find(columns_.begin(), columns_.end(), column);
  if (it == columns_.end()) return std::nullopt;
  return static_cast<size_t>(it - columns_.begin());
}

std::string_view CsvTable::text(size_t row, std::string_view column) const {
  const auto index = find(column);
  if (!index || *index >= cells_.at(row).size()) return {};
  return cells_[row][*index];
}

std::optional<double> CsvTable::number(size_t row, std::string_view column) const {
  const std::string_view cell = text(row, column);
  if (cell.empty()) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size() || !std::isfinite(value))
    fail(ErrorKind::kData, "{}, column {}: expected a number, found '{}'", where(row), column, cell);
  return value;
}

double CsvTable::required_number(size_t row, std::string_view column) const {
  if (const auto value = number(row, column)) return *value;
  fail(ErrorKind::kData, "{}, column {}: expected a number, found a blank", where(row), column);
}

int64_t CsvTable::whole(size_t row, std::string_view column, int64_t most) const {
  const double v = number(row, column).value_or(0);
  if (!(v >= 0 && v <= static_cast<double>(most)) || v != std::floor(v))
    fail(ErrorKind::kData, "{}, column {}: expected a whole number from 0 to {}, found {}", where(row),
         column, most, v);
  return static_cast<int64_t>(v);
}

void CsvTable::require_column(std::string_view column) const {
  if (has(column)) return;
  std::string known;
  for (const std::string& c : columns_) known += (known.empty() ? "" : ", ") + c;
  fail(ErrorKind::kData, "{}: no column '{}'; it has: {}", name_, column, known);
}

std::string CsvTable::where(size_t row) const { return fmt::format("{} line {}", name_, lines_.at(row)); }

}  // namespace stoker::plan
