// plan/energy.h
// From how busy the machines are to watts, megawatt-hours, tonnes of CO2, litres, and the site that can take
// them. Model        accelerator W = maximum * (wait + (compute - wait) * u) with u the share of time that it
// computes: waiting
//              for a collective is not idling, measured nodes draw nearly half. Host power per accelerator
//              does not depend on u. Switches: one port per accelerator and tier passed (1, 3, 5 for 1, 2, 3
//              tiers). A power cap below that draw slows the clock; dynamic power falls as its cube
//              (slowdown_from_cap).
// Fit          wait, compute and host from measured node power of MLPerf v4.0, tested on v4.1 and v5.0:
// bench/fit_power.py Errors       Usage: utilisation outside 0..1, a cap at or below idle, unknown region
// (nearest ones offered)
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "plan/band.h"
#include "plan/figures.h"

namespace stoker::plan {

enum class Cooling { kRoomAir, kContainedAir, kRearDoor, kLiquid, kNone };
std::string_view to_string(Cooling cooling);

struct PowerInput {
  Watts accelerator_max;  // thermal design power, or its maker's word for it
  Watts cap;              // 0: uncapped
  int64_t accelerators = 1;
  int64_t accelerators_per_node = 8;
  double utilisation = 1;    // share of time spent computing, the rest waits; 0..1
  bool workstation = false;  // a desktop or laptop: its own host power, no fabric
};

struct PowerDraw {  // of the whole job
  Band<Watts> accelerators, hosts, network, storage, it;
  Band<Watts> per_accelerator() const;  // accelerator and host, as a node meter would show it, over the count
  int64_t count = 1;
};
PowerDraw power_draw(const PowerInput& input, const FigureBook& figures);
Band<double> node_watts_per_accelerator(const PowerInput& input, const FigureBook& figures);
int64_t network_tiers(int64_t accelerators,
                      int64_t accelerators_per_node);  // of 64-port switches; 0 for one node

// How much longer compute-bound work takes under the cap; 1 where the cap does not bind.
Band<double> slowdown_from_cap(const PowerInput& input, const FigureBook& figures);

struct GridRegion {
  std::string code, name, date, source;
  double carbon_g_per_kWh = 0;
  Band<DollarsPerJoule> price;
};
GridRegion grid_region(std::string_view code);
std::vector<GridRegion> grid_regions();

struct EnergyUse {
  Band<Joules> it, site;  // site = it * PUE
  Band<double> tonnes_co2;
  Band<double> water_litres;  // on site and at the power plant
};
EnergyUse energy_use(const PowerDraw& draw, Band<Seconds> duration, Band<double> pue, const GridRegion& grid,
                     const FigureBook& figures);

struct RackPlan {
  double node_kw = 0;
  int64_t nodes_per_rack = 0, racks = 0;
  double rack_kw = 0;
  Cooling cooling = Cooling::kRoomAir;  // the least that carries rack_kw
  int64_t air_nodes_per_rack = 0;       // where air cooling ends; 0: one node is already too much
  double site_mw = 0;                   // peak, PUE included
};
// The densest racks that `cooling` (or better) carries, at full power; node_units: height of a node, 8 U by
// default.
RackPlan plan_racks(Watts node_peak, int64_t nodes, double pue, const FigureBook& figures,
                    double node_units = 8, Cooling best = Cooling::kContainedAir);

}  // namespace stoker::plan
