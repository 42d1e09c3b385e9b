#include "plan/energy.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "plan/catalog.h"
#include "plan/catalog_files.h"
#include "plan/csv.h"

namespace stoker::plan {
namespace {

Band<Watts> watts(Band<double> b) { return {Watts(b.low), Watts(b.mid), Watts(b.high)}; }

void check_power(const PowerInput& in) {
  if (!(in.utilisation >= 0 && in.utilisation <= 1))
    fail(ErrorKind::kUsage, "utilisation = {}: expected 0 to 1", in.utilisation);
  if (in.accelerators < 1 || in.accelerators_per_node < 1)
    fail(ErrorKind::kUsage, "accelerators = {}, per node = {}: expected at least 1 of each", in.accelerators,
         in.accelerators_per_node);
  if (!(in.accelerator_max.value() > 0) || !std::isfinite(in.accelerator_max.value()))
    fail(ErrorKind::kUsage,
         "accelerator power = {} W: expected more than 0. Give accelerator.power in the plan file.",
         in.accelerator_max.value());
  if (!(in.cap.value() >= 0))
    fail(ErrorKind::kUsage, "power cap = {} W: it cannot be negative", in.cap.value());
}

Band<double> host_w(const PowerInput& in, const FigureBook& f) {
  return in.workstation ? f.at("power.host_w_workstation") / static_cast<double>(in.accelerators_per_node)
                        : f.at("power.host_w_per_accelerator");
}

// The cap holds while it computes, and while it waits where even that draws more.
Band<double> accelerator_w(const PowerInput& in, const FigureBook& f) {
  const double max = in.accelerator_max.value(), idle = f.at("power.idle_fraction").mid * max;
  const double cap = in.cap.value() > 0 ? in.cap.value() : max;
  if (cap <= idle)
    fail(ErrorKind::kUsage, "power cap {} W contradicts accelerator power {} W: it idles at {:.0f} W already",
         cap, max, idle);
  if (cap > max)
    fail(ErrorKind::kUsage, "power cap {} W contradicts accelerator power {} W: it draws less without a cap",
         cap, max);
  const auto &wait = f.at("power.wait_fraction"), &compute = f.at("power.compute_fraction");
  const auto mean = [&](double w, double c) {
    return std::min(w * max, cap) * (1 - in.utilisation) + std::min(c * max, cap) * in.utilisation;
  };
  return {mean(wait.low, compute.low), mean(wait.mid, compute.mid), mean(wait.high, compute.high)};
}

}  // namespace

std::string_view to_string(Cooling cooling) {
  switch (cooling) {
    case Cooling::kRoomAir:
      return "room air";
    case Cooling::kContainedAir:
      return "contained-aisle air";
    case Cooling::kRearDoor:
      return "rear-door heat exchanger";
    case Cooling::kLiquid:
      return "direct liquid";
    case Cooling::kNone:
      return "beyond direct liquid";
  }
  return "?";
}

Band<Watts> PowerDraw::per_accelerator() const { return (accelerators + hosts) / static_cast<double>(count); }

int64_t network_tiers(int64_t accelerators, int64_t accelerators_per_node) {
  if (accelerators <= accelerators_per_node) return 0;
  // Folded Clos of 64-port switches: 64, 64^2/2, 64^3/4 end ports, rail-optimised so that one rail's tree
  // counts per accelerator of a node.
  const int64_t rails = std::min<int64_t>(accelerators_per_node, 8);
  const int64_t ends = (accelerators + rails - 1) / rails;
  if (ends <= 64) return 1;
  if (ends <= 2048) return 2;
  return 3;
}

Band<double> node_watts_per_accelerator(const PowerInput& in, const FigureBook& f) {
  check_power(in);
  return accelerator_w(in, f) + host_w(in, f);
}

PowerDraw power_draw(const PowerInput& in, const FigureBook& f) {
  check_power(in);
  const double n = static_cast<double>(in.accelerators);
  PowerDraw draw;
  draw.count = in.accelerators;
  draw.accelerators = watts(accelerator_w(in, f) * n);
  draw.hosts = watts(host_w(in, f) * n);
  const int64_t tiers = in.workstation ? 0 : network_tiers(in.accelerators, in.accelerators_per_node);
  const double ports = tiers == 0 ? 0 : static_cast<double>(2 * tiers - 1);
  draw.network = watts((f.at("power.switch_port_w") + f.at("power.optic_w")) * (n * ports));
  draw.storage = in.workstation ? Band<Watts>{} : watts(f.at("power.storage_w_per_accelerator") * n);
  draw.it = draw.accelerators + draw.hosts + draw.network + draw.storage;
  return draw;
}

Band<double> slowdown_from_cap(const PowerInput& in, const FigureBook& f) {
  check_power(in);
  if (in.cap.value() == 0) return Band<double>::exactly(1);
  const double wanted = f.at("power.compute_fraction").mid * in.accelerator_max.value();
  if (in.cap.value() >= wanted) return Band<double>::exactly(1);
  accelerator_w(in, f);  // refuses impossible caps
  const Band<double>& share = f.at("power.cap_static_share");
  const double left = in.cap.value() / wanted;
  const auto slow = [&](double fixed) {
    return left <= fixed ? 10.0 : std::cbrt((1 - fixed) / (left - fixed));
  };
  return {slow(share.low), slow(share.mid), slow(share.high)};
}

std::vector<GridRegion> grid_regions() {
  const CsvTable table("grid.csv", catalog_file("grid.csv"));
  std::vector<GridRegion> regions;
  for (size_t row = 0; row < table.rows(); ++row) {
    const auto price = [&](const char* column) {
      const double usd = table.required_number(row, column);
      if (usd < 0) fail(ErrorKind::kData, "{}: negative price", table.where(row));
      return DollarsPerJoule(usd / 3.6e6);
    };
    regions.push_back(
        {std::string(table.text(row, "region")),
         std::string(table.text(row, "name")),
         std::string(table.text(row, "date")),
         std::string(table.text(row, "source")),
         table.required_number(row, "carbon_g_per_kWh"),
         {price("price_low_usd_per_kWh"), price("price_usd_per_kWh"), price("price_high_usd_per_kWh")}});
  }
  return regions;
}

GridRegion grid_region(std::string_view code) {
  std::vector<std::string> known;
  for (GridRegion& region : grid_regions()) {
    if (region.code == code) return region;
    known.push_back(region.code);
  }
  fail(ErrorKind::kUsage, "unknown grid region '{}'; nearest: {}. All: {}", code,
       fmt::join(nearest_names(code, known), ", "), fmt::join(known, " "));
}

EnergyUse energy_use(const PowerDraw& draw, Band<Seconds> duration, Band<double> pue, const GridRegion& grid,
                     const FigureBook& figures) {
  if (pue.low < 1)
    fail(ErrorKind::kUsage, "PUE = {}: expected at least 1 (site energy over computing energy)", pue.low);
  EnergyUse use;
  use.it = product(draw.it, duration);
  use.site = {use.it.low * pue.low, use.it.mid * pue.mid, use.it.high * pue.high};
  const double grams_per_joule = grid.carbon_g_per_kWh / 3.6e6;
  use.tonnes_co2 = {use.site.low.value() * grams_per_joule / 1e6,
                    use.site.mid.value() * grams_per_joule / 1e6,
                    use.site.high.value() * grams_per_joule / 1e6};
  const auto &site = figures.at("water.site_l_per_kWh"), &plant = figures.at("water.grid_l_per_kWh");
  const auto litres = [](Joules it, Joules all, double s, double p) {
    return it.value() / 3.6e6 * s + all.value() / 3.6e6 * p;
  };
  use.water_litres = {litres(use.it.low, use.site.low, site.low, plant.low),
                      litres(use.it.mid, use.site.mid, site.mid, plant.mid),
                      litres(use.it.high, use.site.high, site.high, plant.high)};
  return use;
}

RackPlan plan_racks(Watts node_peak, int64_t nodes, double pue, const FigureBook& f, double node_units,
                    Cooling best) {
  if (nodes < 1 || !(node_peak.value() > 0) || !(node_units > 0))
    fail(ErrorKind::kUsage, "racks: {} nodes of {} W and {} units: expected more than 0 of each", nodes,
         node_peak.value(), node_units);
  const double limits[] = {f.at("cooling.room_air_kw_per_rack").mid,
                           f.at("cooling.contained_air_kw_per_rack").mid,
                           f.at("cooling.rear_door_kw_per_rack").mid, f.at("cooling.liquid_kw_per_rack").mid};
  RackPlan plan;
  plan.node_kw = node_peak.value() / 1000;
  const int64_t by_space =
      std::max<int64_t>(1, static_cast<int64_t>(f.at("rack.usable_units").mid / node_units));
  const auto by_power = [&](double limit) { return static_cast<int64_t>(limit / plan.node_kw); };
  plan.air_nodes_per_rack = std::min(by_space, by_power(limits[1]));
  // One node has to stand somewhere, so cooling is raised until it does.
  size_t level = static_cast<size_t>(best == Cooling::kNone ? Cooling::kLiquid : best);
  while (level < 3 && by_power(limits[level]) < 1) ++level;
  plan.nodes_per_rack = std::clamp<int64_t>(by_power(limits[level]), 1, by_space);
  plan.nodes_per_rack = std::min(plan.nodes_per_rack, nodes);
  plan.rack_kw = plan.node_kw * static_cast<double>(plan.nodes_per_rack);
  size_t least = 0;
  while (least < 4 && plan.rack_kw > limits[least]) ++least;
  plan.cooling = static_cast<Cooling>(least);
  plan.racks = (nodes + plan.nodes_per_rack - 1) / plan.nodes_per_rack;
  plan.site_mw = plan.node_kw * static_cast<double>(nodes) * pue / 1000;
  return plan;
}

}  // namespace stoker::plan
