#include "plan/published_failures.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>
#include <regex>

#include "plan/catalog_files.h"
#include "plan/failures.h"

namespace stoker::plan {
namespace {

constexpr double kNineOfTen = 1.645;  // standard deviations to each side

// The first number in a text, thousands separated or not.
std::optional<double> number_in(std::string_view text) {
  std::string digits;
  for (char c : text) {
    if (std::isdigit(static_cast<unsigned char>(c)) || (c == '.' && !digits.empty())) digits += c;
    else if (c == ',' && !digits.empty()) continue;
    else if ((c == 'k' || c == 'K') && !digits.empty()) return std::stod(digits.substr(0, 15)) * 1000;
    else if (!digits.empty()) break;
  }
  if (digits.empty()) return std::nullopt;
  return std::stod(digits.substr(0, 15));
}

std::optional<double> days_of(std::string_view window) {
  const std::optional<double> n = number_in(window);
  if (!n) return std::nullopt;
  auto has = [&](const char* word) { return window.find(word) != std::string_view::npos; };
  if (has("month")) return *n * 30;
  if (has("week")) return *n * 7;
  if (has("day")) return *n;
  return std::nullopt;
}

// The logs without those of one run, unless it is the itemised one.
FailureCatalog catalog_without(const std::string& run, bool& own_log) {
  const std::string all = catalog_file("failure_logs.csv");
  const CsvTable table("failure_logs.csv", all);
  own_log = false;
  std::string kept;
  size_t line = 0, begin = 0;
  while (begin < all.size()) {
    const size_t end = std::min(all.find('\n', begin), all.size() - 1);
    const std::string text = all.substr(begin, end - begin + 1);
    const bool of_run = !run.empty() && text.starts_with(run + ",");
    const bool whole = text.find(",total,") != std::string::npos;
    if (of_run && !whole) own_log = true;
    if (line == 0 || !of_run || !whole) kept += text;
    begin = end + 1, ++line;
  }
  return read_failure_catalog("failure_logs.csv", kept);
}

// Names of a published row and of the catalog's logs differ in detail: the first word decides.
std::string log_name(std::string_view run, std::string_view metric) {
  if (metric.starts_with("RSC-1")) return "Meta RSC-1";
  if (metric.starts_with("RSC-2")) return "Meta RSC-2";
  for (const char* known : {"Llama 3 405B", "BLOOM 176B", "OPT-175B", "Crusoe customer"})
    if (run == known) return known;
  return "";
}

}  // namespace

std::vector<FailureCheck> check_failures(const CsvTable& t) {
  for (const char* column : {"cluster_or_run", "scale", "window", "metric", "value", "unit"})
    t.require_column(column);
  static const std::regex of_job(R"((\d[\d,]*)-GPU)");
  std::vector<FailureCheck> checks(t.rows());
  for (size_t r = 0; r < t.rows(); ++r) {
    FailureCheck& c = checks[r];
    const std::string metric(t.text(r, "metric")), unit(t.text(r, "unit"));
    c.run = t.text(r, "cluster_or_run");
    c.quantity = metric.empty() ? std::string(t.text(r, "cause")) : metric;
    c.unit = unit;
    c.published_text = t.text(r, "value");
    const std::optional<double> value = number_in(c.published_text);
    if (metric.empty() || !value) {
      c.reason = "a share of causes: the rates are of components, not of causes";
      continue;
    }
    c.published = *value;
    c.at_least = c.published_text.find('>') != std::string::npos;
    std::optional<double> accelerators = number_in(t.text(r, "scale"));
    std::smatch m;
    if (std::regex_search(metric, m, of_job)) accelerators = number_in(m[1].str());
    const std::optional<double> days = days_of(t.text(r, "window"));
    const FailureCatalog catalog = catalog_without(log_name(c.run, metric), c.own_log);
    if (!accelerators && unit.find("node-days") == std::string::npos) {
      c.reason = "no number of accelerators stated";
      continue;
    }
    const JobScale scale{std::max<int64_t>(1, std::llround(accelerators.value_or(8))), 8};
    const std::vector<ComponentRate> rates = job_rates(catalog, scale);
    const double per_day = total_per_second(rates) * 86400;
    auto band = [&](double at_rate) {  // of a quantity in proportion to the rate
      const double mean = c.own_log ? 0 : catalog.log_factor_mean, sigma = catalog.log_factor_sigma;
      return Band<double>{at_rate * std::exp(mean - kNineOfTen * sigma), at_rate * std::exp(mean),
                          at_rate * std::exp(mean + kNineOfTen * sigma)};
    };
    auto names = [&](const char* word) { return metric.find(word) != std::string::npos; };
    if (unit.find("node-days") != std::string::npos) {
      c.predicted = band(per_day / static_cast<double>(scale.nodes()) * 1000);
    } else if ((names("MTTF") || names("MTBF") || names("MTTI")) && unit.starts_with("h")) {
      const Band<double> often = band(per_day);
      c.predicted = {24 / often.high, 24 / often.mid, 24 / often.low};
    } else if (unit.starts_with("1/day")) {
      c.predicted = band(per_day);
    } else if (names("GPU hardware failures") && unit.starts_with("per week")) {
      double chips = 0;
      for (const ComponentRate& rate : rates)
        if (rate.name == "accelerator") chips += rate.job_per_day();
      c.predicted = band(chips * 7);
    } else if (unit.starts_with("count") && days &&
               (names("unexpected") || metric == "failures" || names("automatic restarts"))) {
      c.predicted = band(per_day * *days);
    } else if (names("effective training time")) {
      GoodputInput in;
      in.work_s = days.value_or(30) * 86400, in.rates = rates;
      in.log_factor_mean = c.own_log ? 0 : catalog.log_factor_mean;
      in.log_factor_sigma = c.own_log ? 0 : catalog.log_factor_sigma;
      in.scale = scale;
      // these operators keep spare nodes and find faults by machine
      in.recovery.mode = RecoveryMode::kHotSpare;
      const GoodputResult g = simulate_goodput(in);
      c.predicted = {100 * g.goodput.low, 100 * g.goodput.mid, 100 * g.goodput.high};
    } else {
      c.reason = "not a rate, a distance in time or a share of training time";
      continue;
    }
    c.in_band = c.at_least ? c.predicted.high >= c.published
                           : c.predicted.low <= c.published && c.published <= c.predicted.high;
  }
  return checks;
}

}  // namespace stoker::plan
