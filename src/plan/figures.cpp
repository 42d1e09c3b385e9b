#include "plan/figures.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <numeric>

#include "base/error.h"
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
  fail(ErrorKind::kUsage, "no figure '{}'; nearest: {}", key, fmt::join(closest_names(key, known), ", "));
}

const Band<double>& FigureBook::at(std::string_view key) const { return figure(key).value; }

void FigureBook::set(std::string_view key, double value) {
  const Figure& old = figure(key);
  if (!std::isfinite(value) || value < 0)
    fail(ErrorKind::kUsage, "{} = {}: expected a finite number that is not negative ({})", key, value,
         old.unit);
  figures_[std::string(key)] = {Band<double>::exactly(value), old.unit, "given", "", "given by the user"};
}

std::vector<std::string> closest_names(std::string_view wanted, const std::vector<std::string>& known,
                                       size_t count) {
  const auto lower = [](std::string_view s) {
    std::string out(s);
    for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return out;
  };
  const std::string w = lower(wanted);
  std::vector<std::pair<double, std::string>> scored;
  for (const std::string& name : known) {
    const std::string k = lower(name);
    std::vector<size_t> row(k.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (size_t i = 1; i <= w.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= k.size(); ++j) {
        const size_t up = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (w[i - 1] == k[j - 1] ? 0 : 1)});
        diagonal = up;
      }
    }
    double score = static_cast<double>(row[k.size()]);
    // "h100" is nearer to "H100-SXM" than to "T400", whatever the count of letters says.
    if (!w.empty() && k.find(w) != std::string::npos) score = 0.01 * static_cast<double>(k.size());
    scored.emplace_back(score, name);
  }
  std::stable_sort(scored.begin(), scored.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> out;
  for (size_t i = 0; i < std::min(count, scored.size()); ++i) out.push_back(scored[i].second);
  return out;
}

}  // namespace stoker::plan
