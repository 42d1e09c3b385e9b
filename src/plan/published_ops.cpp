#include "plan/published_ops.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <map>

#include "base/error.h"
#include "plan/catalog.h"
#include "plan/collectives.h"
#include "plan/efficiency.h"
#include "plan/matrix_product.h"
#include "plan/validate.h"

namespace stoker::plan {
namespace {

// "Azure ND H100 v5" names an accelerator in one of its words.
const CatalogAccelerator* accelerator_in(std::string_view system) {
  std::string word;
  for (size_t i = 0; i <= system.size(); ++i) {
    const unsigned char c = i < system.size() ? static_cast<unsigned char>(system[i]) : ' ';
    if (std::isalnum(c)) {
      word += static_cast<char>(std::tolower(c));
      continue;
    }
    if (word.size() > 1)
      if (const CatalogAccelerator* found = lookup_accelerator(word)) return found;
    word.clear();
  }
  return nullptr;
}

// Calls predict(rows of one series) for each series; a series is a key.
void by_series(const std::vector<std::string>& keys,
               const std::function<void(const std::vector<size_t>&)>& predict) {
  std::map<std::string, std::vector<size_t>> series;
  for (size_t i = 0; i < keys.size(); ++i)
    if (!keys[i].empty()) series[keys[i]].push_back(i);
  for (const auto& [key, rows] : series) predict(rows);
}

void finish(OpCheck& c, double seconds) {
  c.predicted_s = seconds;
  c.error = seconds / c.measured_s - 1;
}

}  // namespace

std::vector<OpCheck> check_products(const CsvTable& t) {
  for (const char* column : {"system", "dtype", "m", "n", "k", "TFLOPs"}) t.require_column(column);
  std::vector<OpCheck> checks(t.rows());
  std::vector<std::string> keys(t.rows());
  struct Shape {
    double m, n, k, flops;
  };
  std::vector<Shape> shapes(t.rows());
  for (size_t r = 0; r < t.rows(); ++r) {
    OpCheck& c = checks[r];
    Shape& s = shapes[r];
    s = {t.required_number(r, "m"), t.required_number(r, "n"), t.required_number(r, "k"), 0};
    s.flops = 2 * s.m * s.n * s.k;
    const double rate = t.required_number(r, "TFLOPs") * 1e12;
    if (!(s.flops > 0 && rate > 0))
      fail(ErrorKind::kData, "{}: expected sizes and TFLOPs above 0", t.where(r));
    c.system = t.text(r, "system");
    c.what = fmt::format("{} {:.0f}x{:.0f}x{:.0f}", t.text(r, "dtype"), s.m, s.n, s.k);
    c.measured_s = s.flops / rate;
    if (!accelerator_in(c.system)) c.reason = "no accelerator of the catalog in the system's name";
    else keys[r] = fmt::format("{}|{}", c.system, t.text(r, "dtype"));
  }
  by_series(keys, [&](const std::vector<size_t>& rows) {
    size_t largest = rows[0];
    for (size_t r : rows)
      if (shapes[r].flops > shapes[largest].flops) largest = r;
    const AcceleratorSpec& a = accelerator_in(checks[rows[0]].system)->spec;
    const Efficiency e = fitted_efficiency().resolve(a.family, "", "");
    ProductRates rates{.arithmetic = shapes[largest].flops / checks[largest].measured_s,
                       .memory = e[Term::kMemory] * a.memory_bandwidth.value(),
                       .kernel = e[Term::kKernel],
                       .tile = e[Term::kTile]};
    // its own fill is not the limit's
    const Shape& l = shapes[largest];
    rates.arithmetic /= l.m / (l.m + rates.tile) * (l.n / (l.n + rates.tile)) * (l.k / (l.k + rates.tile));
    for (size_t r : rows) {
      finish(checks[r], product_seconds(shapes[r].m, shapes[r].n, shapes[r].k, rates));
      checks[r].sets_a_rate = r == largest;
    }
  });
  return checks;
}

std::vector<OpCheck> check_collectives(const CsvTable& t) {
  for (const char* column : {"system", "n_gpus", "collective", "payload_bytes", "busbw_GBps"})
    t.require_column(column);
  std::vector<OpCheck> checks(t.rows());
  std::vector<std::string> keys(t.rows());
  struct Transfer {
    int64_t ranks;
    double bytes;
    bool all_reduce;
  };
  std::vector<Transfer> transfers(t.rows());
  for (size_t r = 0; r < t.rows(); ++r) {
    OpCheck& c = checks[r];
    Transfer& x = transfers[r];
    const std::string_view kind = t.text(r, "collective");
    x = {std::llround(t.required_number(r, "n_gpus")), t.required_number(r, "payload_bytes"),
         kind == "all_reduce"};
    const double bandwidth = t.required_number(r, "busbw_GBps") * 1e9;
    if (!(x.ranks > 1 && x.bytes > 0 && bandwidth > 0))
      fail(ErrorKind::kData, "{}: expected two ranks or more, payload and bandwidth above 0", t.where(r));
    c.system = t.text(r, "system");
    c.what = fmt::format("{} {} of {:.0f} B over {}", t.text(r, "algorithm"), kind, x.bytes, x.ranks);
    const double n = static_cast<double>(x.ranks);
    c.measured_s = (x.all_reduce ? 2 : 1) * (n - 1) / n * x.bytes / bandwidth;
    if (!x.all_reduce && kind != "all_gather" && kind != "reduce_scatter")
      c.reason = "only all_reduce, all_gather and reduce_scatter are predicted";
    else keys[r] = fmt::format("{}|{}|{}|{}", c.system, kind, t.text(r, "algorithm"), x.ranks);
  }
  by_series(keys, [&](const std::vector<size_t>& rows) {
    size_t largest = rows[0], smallest = rows[0];
    for (size_t r : rows) {
      if (transfers[r].bytes > transfers[largest].bytes) largest = r;
      if (transfers[r].bytes < transfers[smallest].bytes) smallest = r;
    }
    auto seconds = [&](size_t r, const Fabric& f) {
      const Transfer& x = transfers[r];
      return x.all_reduce ? all_reduce_seconds(f, {x.ranks, 1}, x.bytes)
                          : all_gather_seconds(f, {x.ranks, 1}, x.bytes);
    };
    Fabric f{.domain = 0, .start = 0, .hop = 0};
    f.inside = 1;
    f.inside = seconds(largest, f) / checks[largest].measured_s;
    Fabric one = f;
    one.start = 1, one.inside = 1e300;
    const double starts = seconds(smallest, one);
    f.start = std::max(0.0, checks[smallest].measured_s - seconds(smallest, f)) / starts;
    for (size_t r : rows) {
      finish(checks[r], seconds(r, f));
      checks[r].sets_a_rate = r == largest || r == smallest;
      if (rows.size() < 3) checks[r].reason = "too few rows of its series: both only set the rate";
    }
  });
  return checks;
}

OpSummary summarise(const std::vector<OpCheck>& checks) {
  OpSummary s;
  s.rows = checks.size();
  std::vector<std::pair<double, double>> errors;
  for (const OpCheck& c : checks)
    if (c.reason.empty() && !c.sets_a_rate) errors.emplace_back(std::abs(c.error), 1);
  s.predicted = errors.size();
  s.median = weighted_quantile(errors, 0.5);
  s.p90 = weighted_quantile(errors, 0.9);
  return s;
}

}  // namespace stoker::plan
