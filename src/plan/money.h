// plan/money.h
// What a run costs on each way of getting machines, line by line, with what has to be raised,
// waited for and left idle.
// Owned paths    charge the run its share of the hardware's life: price less resale over life x
//                utilisation, capital on the average book value, maintenance, space or building,
//                staff, energy. Utilisation is the share of the life in which the machines do
//                paid work; idle time is thereby in the price.
// Rented paths   pay by the hour from dated offers, whole instances, plus a share for set-up;
//                reserved ones pay their whole term, used or not. Spot and marketplace runs last
//                longer: the wall time given for them holds that.
// Bands          low takes every figure's cheap end together, high every dear end: an outer
//                bound
// Errors         Usage: utilisation outside (0, 1], negative prices or hours. A path that cannot
//                be priced is returned with its reason, never dropped.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "plan/band.h"
#include "plan/energy.h"
#include "plan/figures.h"
#include "plan/prices.h"

namespace stoker::plan {

enum class PathKind {
  kHyperscale,
  kOnPremises,
  kOnDemand,
  kReserved1Year,
  kReserved3Years,
  kSpot,
  kMarketplace,
  kEdge
};
inline constexpr PathKind kAllPaths[] = {
    PathKind::kHyperscale,     PathKind::kOnPremises, PathKind::kOnDemand,    PathKind::kReserved1Year,
    PathKind::kReserved3Years, PathKind::kSpot,       PathKind::kMarketplace, PathKind::kEdge};
std::string_view to_string(PathKind path);
PathKind parse_path(std::string_view text);  // Usage with the names that exist
bool is_owned(PathKind path);

struct MoneyInput {
  std::string accelerator;  // as in the hardware catalog; priced by its canonical name
  double peak_tflops = 0;   // dense bf16, prices hardware that has no price of its own
  int64_t accelerators = 1, accelerators_per_node = 8;
  Band<Seconds> wall;  // duration of the run, failures included
  PowerDraw draw;      // mean while it runs
  GridRegion grid;
  double utilisation = 0.7;  // of owned machines over their life
  double data_in_gb = 0, data_out_gb = 0, storage_tb = 0;
  std::optional<double> dollars_per_hour;  // per accelerator: overrides the offers
  std::string cloud;                       // only offers of this cloud; empty: all
  bool workstation = false;
  std::optional<double> pue;  // of the site, where the plan gives one
};

// Site energy over computing energy where a path's machines stand.
Band<double> pue_of(PathKind path, bool workstation, std::optional<double> given, const FigureBook& figures);

struct CostLine {
  std::string name;
  Band<Dollars> cost;
  std::string how, source;  // the formula with its numbers; figures and offers it rests on
};

struct PathCost {
  PathKind path = PathKind::kOnDemand;
  bool possible = true;
  std::string reason;  // why not, or what to beware of
  std::vector<CostLine> lines;
  Band<Seconds> wall;  // time to finish on this path: what can be taken away takes longer
  EnergyUse energy;
  Band<Dollars> total;
  Dollars to_raise;  // cash before the first step: capital of owned paths, commitment of reserved ones
  Band<double> lead_days;
  std::optional<Offer> offer;  // cheapest one, rented paths
  Band<double> per_accelerator_hour;
};
PathCost price_path(PathKind path, const MoneyInput& input, const std::vector<Offer>& offers,
                    const FigureBook& figures);

struct BreakEven {
  double utilisation =
      0;  // above it, owning for the hardware's life is cheaper per used hour than this rent; >1: never
  double months =
      0;  // of use at the given utilisation until rent paid exceeds the cost of owning; infinite: never
  std::string how;
};
BreakEven break_even(PathKind owned, double rent_per_hour, const MoneyInput& input,
                     const FigureBook& figures);

}  // namespace stoker::plan
