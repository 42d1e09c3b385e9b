#include "plan/prices.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <limits>

#include "base/error.h"
#include "plan/catalog_files.h"
#include "plan/csv.h"

namespace stoker::plan {
namespace {

constexpr double kNoPriceSentinel = 700;  // GCP rows of SkyPilot's catalog carry it as both prices

std::optional<double> price(const CsvTable& table, size_t row, const char* column) {
  const auto value = table.number(row, column);
  if (value && *value < 0)
    fail(ErrorKind::kData, "{}, column {}: negative price {}; a price is dollars per hour, at least 0",
         table.where(row), column, *value);
  return value;
}

}  // namespace

std::string canonical_accelerator(std::string_view name) {
  std::vector<std::string> parts(1);
  for (const char c : name) {
    if (c == '-' || c == ' ' || c == '_') parts.emplace_back();
    else parts.back() += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  std::erase(parts, "");
  if (!parts.empty() && (parts[0] == "NVIDIA" || parts[0] == "AMD") && parts.size() > 1)
    parts.erase(parts.begin());
  if (parts.empty()) return {};
  std::string family = parts[0], memory;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& p = parts[i];
    if (p.ends_with("GB") && p.size() > 2 && std::isdigit(static_cast<unsigned char>(p[0]))) memory = p;
    else if ((family == "RTX" || family == "TPU") || (family == "GTX"))
      family += (family == "TPU" ? " " : "") + p;
  }
  if (family.starts_with("RTX") && family.size() > 3 && family[3] == 'A')
    family = family.substr(3);  // RTXA6000
  // Only these are sold with memories that change what fits.
  if (family == "A100" || family == "A800") return family + "-" + (memory == "80GB" ? "80GB" : "40GB");
  if (family == "V100") return family + "-" + (memory == "32GB" ? "32GB" : "16GB");
  return family;
}

std::vector<Offer> read_skypilot(std::string_view cloud, std::string_view csv, std::string_view source) {
  const CsvTable table(fmt::format("{} price catalog", cloud), csv);
  for (const char* column : {"InstanceType", "AcceleratorName", "AcceleratorCount", "Price"})
    table.require_column(column);
  std::vector<Offer> offers;
  for (size_t row = 0; row < table.rows(); ++row) {
    const auto count = table.number(row, "AcceleratorCount");
    const std::string_view name = table.text(row, "AcceleratorName");
    const auto on_demand = price(table, row, "Price"), spot = price(table, row, "SpotPrice");
    if (name.empty() || !count || *count <= 0) continue;  // a processor instance
    Offer offer;
    offer.cloud = cloud;
    offer.instance = table.text(row, "InstanceType");
    offer.accelerator = canonical_accelerator(name);
    offer.region = table.text(row, "Region");
    offer.source = source;
    offer.count = *count;
    const bool sentinel = on_demand == kNoPriceSentinel && spot == kNoPriceSentinel;
    if (on_demand && *on_demand > 0 && !sentinel) offer.on_demand = *on_demand / *count;
    if (spot && *spot > 0 && !sentinel) offer.spot_low = offer.spot_high = *spot / *count;
    if (offer.on_demand || offer.spot_low) offers.push_back(std::move(offer));
  }
  return offers;
}

std::vector<Offer> read_published(std::string_view name, std::string_view csv) {
  const CsvTable table{std::string(name), csv};
  for (const char* column : {"cloud", "instance", "accelerator", "count", "price_usd_per_h"})
    table.require_column(column);
  std::vector<Offer> offers;
  for (size_t row = 0; row < table.rows(); ++row) {
    const double count = table.required_number(row, "count");
    if (count <= 0) fail(ErrorKind::kData, "{}: count {} of accelerators", table.where(row), count);
    Offer offer;
    offer.cloud = table.text(row, "cloud");
    offer.instance = table.text(row, "instance");
    offer.accelerator = canonical_accelerator(table.text(row, "accelerator"));
    offer.region = table.text(row, "region");
    offer.source = fmt::format("{} {}", table.text(row, "catalog"), table.text(row, "commit"));
    offer.date = table.text(row, "date");
    offer.count = count;
    if (const auto p = price(table, row, "price_usd_per_h")) offer.on_demand = *p / count;
    if (const auto p = price(table, row, "spot_low_usd_per_h")) offer.spot_low = *p / count;
    if (const auto p = price(table, row, "spot_high_usd_per_h")) offer.spot_high = *p / count;
    if (offer.on_demand || offer.spot_low) offers.push_back(std::move(offer));
  }
  return offers;
}

std::vector<Offer> read_price_file(const std::string& path) {
  const std::string text = read_text(path, "a SkyPilot catalog CSV");
  if (CsvTable(path, text).has("InstanceType")) {
    const std::filesystem::path p(path);
    // catalogs/v8/aws/vms.csv or aws.csv
    const std::string cloud = p.stem() == "vms" ? p.parent_path().filename().string() : p.stem().string();
    return read_skypilot(cloud, text, path);
  }
  return read_published(path, text);
}

std::vector<Offer> built_in_offers() {
  std::vector<Offer> offers;
  for (const std::string& name : catalog_names("prices/")) {
    const std::string text = catalog_file(name);
    std::vector<Offer> more;
    if (name.starts_with("prices/skypilot/")) {
      const std::string cloud = std::filesystem::path(name).stem().string();
      more = read_skypilot(cloud, text, "skypilot-org/skypilot-catalog catalogs/v8/" + cloud + "/vms.csv");
    } else {
      more = read_published(name, text);
    }
    offers.insert(offers.end(), more.begin(), more.end());
  }
  return offers;
}

std::vector<Offer> offers_for(const std::vector<Offer>& offers, std::string_view accelerator) {
  const std::string wanted = canonical_accelerator(accelerator);
  std::vector<Offer> found;
  std::copy_if(offers.begin(), offers.end(), std::back_inserter(found),
               [&](const Offer& o) { return o.accelerator == wanted; });
  std::stable_sort(found.begin(), found.end(), [](const Offer& a, const Offer& b) {
    constexpr double kNone = std::numeric_limits<double>::infinity();
    return a.on_demand.value_or(kNone) < b.on_demand.value_or(kNone);
  });
  return found;
}

}  // namespace stoker::plan
