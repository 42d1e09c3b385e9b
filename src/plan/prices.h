// plan/prices.h
// What machines rent for: dated offers from catalog files, read as their publishers write them.
// Formats      SkyPilot service catalogs (v5 to v9), columns in any order: InstanceType, AcceleratorName,
//              AcceleratorCount, Price ($/h of the instance), SpotPrice (may be blank), Region. Their
//              sentinel prices for "none" (GCP's 700.0) are dropped. And the same facts in
//              catalog/prices/published.csv.
// Names        canonical_accelerator brings the clouds' and the makers' names together: "H100-SXM5-80GB" ->
// "H100",
//              "A100" -> "A100-40GB" (as SkyPilot means it), "A100-SXM-80GB" -> "A100-80GB".
// Errors       Data: negative prices, missing columns, cells that are no numbers; table, line and column are
// named
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stoker::plan {

struct Offer {
  std::string cloud, instance, accelerator, region, date, source;  // accelerator: canonical
  double count = 0;                                                // accelerators in the instance
  std::optional<double> on_demand;                                 // $/h per accelerator
  std::optional<double> spot_low, spot_high;
};

std::string canonical_accelerator(std::string_view name);

std::vector<Offer> read_skypilot(std::string_view cloud, std::string_view csv, std::string_view source);
std::vector<Offer> read_published(std::string_view name, std::string_view csv);
// Reads either format by its columns; for SkyPilot files the cloud is the file's or its directory's name.
std::vector<Offer> read_price_file(const std::string& path);
std::vector<Offer> built_in_offers();

// Offers of one accelerator, cheapest on demand first (spot-only ones last).
std::vector<Offer> offers_for(const std::vector<Offer>& offers, std::string_view accelerator);

}  // namespace stoker::plan
