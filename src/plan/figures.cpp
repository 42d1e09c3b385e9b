#include "plan/figures.h"

#include <cmath>

#include "base/error.h"
#include "plan/catalog.h"
#include "plan/catalog_files.h"
#include "plan/csv.h"

namespace stoker::plan {

FigureBook FigureBook::read(std::string_view name, std::string_view csv) {
  const CsvTable table{std::string(name), csv};
  for (const char* column : {"key", "low", "mid", "high", "unit", "kind", "date", "source"})
    table.require_column(column);
  FigureBook book;
  for (size_t row = 0; row < table.rows(); ++row) {
    const Band<double> value{table.required_number(row, "low"), table.required_number(row, "mid"),
                             table.required_number(row, "high")};
    if (value.low < 0 || value.mid < 0 || value.high < 0)
      fail(ErrorKind::kData, "{}: {} is negative; prices, powers and lives cannot be", table.where(row),
           table.text(row, "key"));
    const bool ordered = (value.low <= value.mid && value.mid <= value.high) ||
                         (value.low >= value.mid && value.mid >= value.high);
    if (!ordered)
      fail(ErrorKind::kData, "{}: mid of {} is outside low .. high", table.where(row),
           table.text(row, "key"));
    if (table.text(row, "source").empty() || table.text(row, "kind").empty())
      fail(ErrorKind::kData, "{}: {} has no source or kind", table.where(row), table.text(row, "key"));
    const auto [it, fresh] = book.figures_.emplace(
        std::string(table.text(row, "key")),
        Figure{value, std::string(table.text(row, "unit")), std::string(table.text(row, "kind")),
               std::string(table.text(row, "date")), std::string(table.text(row, "source"))});
    if (!fresh) fail(ErrorKind::kData, "{}: {} is there twice", table.where(row), it->first);
  }
  return book;
}

FigureBook FigureBook::built_in() { return read("figures.csv", catalog_file("figures.csv")); }

const Figure& FigureBook::figure(std::string_view key) const {
  const auto it = figures_.find(std::string(key));
  if (it != figures_.end()) return it->second;
  std::vector<std::string> known;
  for (const auto& [name, _] : figures_) known.push_back(name);
  fail(ErrorKind::kUsage, "no figure '{}'; nearest: {}", key, fmt::join(nearest_names(key, known), ", "));
}

const Band<double>& FigureBook::at(std::string_view key) const { return figure(key).value; }

void FigureBook::set(std::string_view key, double value) {
  const Figure& old = figure(key);
  if (!std::isfinite(value) || value < 0)
    fail(ErrorKind::kUsage, "{} = {}: expected a finite number that is not negative ({})", key, value,
         old.unit);
  figures_[std::string(key)] = {Band<double>::exactly(value), old.unit, "given", "", "given by the user"};
}

}  // namespace stoker::plan
