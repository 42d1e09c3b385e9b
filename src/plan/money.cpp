#include "plan/money.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "plan/catalog.h"

namespace stoker::plan {
namespace {

constexpr double kHoursPerYear = 8766, kHoursPerMonth = 730.5;

Band<Dollars> dollars(Band<double> b) { return {Dollars(b.low), Dollars(b.mid), Dollars(b.high)}; }
Band<double> wall_hours(const MoneyInput& in) {
  return {in.wall.low.value() / 3600, in.wall.mid.value() / 3600, in.wall.high.value() / 3600};
}

struct Owned {
  Band<double> hardware, network, building;  // USD of the whole installation
  Band<double> per_hour_fixed;   // depreciation, capital, maintenance, staff, space: per hour of life
  Band<double> energy_per_hour;  // while it works
  std::vector<std::pair<CostLine, Band<double>>>
      lines;  // with USD per hour of life (energy: per hour of work)
};

std::string price_key(const MoneyInput& in) {
  std::string key = "capex.accelerator.";
  for (const char c : canonical_accelerator(in.accelerator))
    key += c == ' ' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return key;
}

Band<double> accelerator_price(const MoneyInput& in, const FigureBook& f, std::string& source) {
  const std::string key = price_key(in);
  if (f.has(key)) {
    source = fmt::format("{} ({}, {})", key, f.figure(key).kind, f.figure(key).source);
    return f.at(key);
  }
  if (in.peak_tflops <= 0)
    fail(ErrorKind::kUsage, "no price for '{}': set figures.\"{}\" in the plan file, in USD per accelerator",
         in.accelerator, key);
  source = fmt::format("no price for {}: {} TFLOP/s at capex.dollars_per_peak_tflops", in.accelerator,
                       in.peak_tflops);
  return f.at("capex.dollars_per_peak_tflops") * in.peak_tflops;
}

// Straight-line loss of value and capital on the average book value, USD per hour of life.
Band<double> capital_per_hour(Band<double> price, Band<double> years, Band<double> residual,
                              Band<double> rate) {
  const auto one = [](double p, double y, double r, double i) {
    return (p * (1 - r) / y + p * (1 + r) / 2 * i) / kHoursPerYear;
  };
  return {one(price.low, years.low, residual.low, rate.low),
          one(price.mid, years.mid, residual.mid, rate.mid),
          one(price.high, years.high, residual.high, rate.high)};
}

Owned owned_costs(PathKind path, const MoneyInput& in, const FigureBook& f) {
  Owned o;
  const double n = static_cast<double>(in.accelerators);
  std::string price_source;
  o.hardware = accelerator_price(in, f, price_source) * n;
  const auto add = [&](std::string name, Band<double> per_hour, std::string how, std::string source) {
    o.lines.push_back({CostLine{std::move(name), {}, std::move(how), std::move(source)}, per_hour});
    o.per_hour_fixed = o.per_hour_fixed + per_hour;
  };
  const auto years = f.at("finance.hardware_years"), residual = f.at("finance.residual_share"),
             rate = f.at("finance.capital_rate");
  add("accelerators and servers", capital_per_hour(o.hardware, years, residual, rate),
      fmt::format("{} x ${:.0f}, less {:.0f} % resale, over {:.0f} years, capital {:.0f} % a year",
                  in.accelerators, o.hardware.mid / n, residual.mid * 100, years.mid, rate.mid * 100),
      price_source);
  const int64_t tiers = in.workstation ? 0 : network_tiers(in.accelerators, in.accelerators_per_node);
  if (tiers > 0) {
    const std::string key = fmt::format("capex.network_{}_tier", tiers);
    o.network = f.at(key) * n;
    add("network", capital_per_hour(o.network, years, residual, rate),
        fmt::format("{} x ${:.0f}, {} tiers of switches", in.accelerators, f.at(key).mid, tiers), key);
  }
  if (in.storage_tb > 0) {
    const Band<double> storage = f.at("capex.storage_per_tb") * in.storage_tb;
    o.network = o.network + storage;
    add("storage", capital_per_hour(storage, years, residual, rate),
        fmt::format("{:.0f} TB x ${:.0f}", in.storage_tb, f.at("capex.storage_per_tb").mid),
        "capex.storage_per_tb");
  }
  if (path != PathKind::kEdge) {
    const auto& share = f.at("opex.maintenance_share");
    const Band<double> all = o.hardware + o.network;
    add("maintenance",
        {all.low * share.low / kHoursPerYear, all.mid * share.mid / kHoursPerYear,
         all.high * share.high / kHoursPerYear},
        fmt::format("{:.0f} % of hardware price a year", share.mid * 100), "opex.maintenance_share");
    const auto &fte = f.at("opex.staff_fte_usd"), &per = f.at("opex.staff_accelerators_per_fte");
    const auto people = [&](double accelerators_per) { return std::max(0.1, n / accelerators_per); };
    add("staff",
        {fte.low * people(per.low) / kHoursPerYear, fte.mid * people(per.mid) / kHoursPerYear,
         fte.high * people(per.high) / kHoursPerYear},
        fmt::format("{:.1f} people x ${:.0f} a year", people(per.mid), fte.mid),
        "opex.staff_fte_usd, opex.staff_accelerators_per_fte");
  }
  const Band<double> it_kw{in.draw.it.low.value() / 1000, in.draw.it.mid.value() / 1000,
                           in.draw.it.high.value() / 1000};
  if (path == PathKind::kHyperscale) {
    o.building = product(f.at("capex.facility_per_mw"), it_kw / 1000);
    add("building, power and cooling plant",
        capital_per_hour(o.building, f.at("finance.facility_years"), {}, rate),
        fmt::format("{:.2f} MW x ${:.1f} M, over {:.0f} years", it_kw.mid / 1000,
                    f.at("capex.facility_per_mw").mid / 1e6, f.at("finance.facility_years").mid),
        "capex.facility_per_mw, finance.facility_years");
  } else if (path == PathKind::kOnPremises) {
    const auto& space = f.at("opex.colocation_per_kw_month");
    add("space and cooling plant", product(space, it_kw) / kHoursPerMonth,
        fmt::format("{:.0f} kW x ${:.0f} a month", it_kw.mid, space.mid), "opex.colocation_per_kw_month");
  }
  const Band<double> pue = pue_of(path, in.workstation, in.pue, f);
  const auto energy = [&](double kw, double p, DollarsPerJoule price) {
    return kw * p * price.value() * 3.6e6;
  };
  o.energy_per_hour = {energy(it_kw.low, pue.low, in.grid.price.low),
                       energy(it_kw.mid, pue.mid, in.grid.price.mid),
                       energy(it_kw.high, pue.high, in.grid.price.high)};
  return o;
}

void price_owned(PathKind path, const MoneyInput& in, const FigureBook& f, PathCost& out) {
  const Owned owned = owned_costs(path, in, f);
  const Band<double> hours = wall_hours(in);
  // The run pays for its hours and for its share of the idle ones.
  for (const auto& [line, per_hour] : owned.lines) {
    CostLine cost = line;
    cost.cost = dollars(product(per_hour, hours) / in.utilisation);
    cost.how += fmt::format("; {:.0f} h at {:.0f} % use", hours.mid, in.utilisation * 100);
    out.lines.push_back(std::move(cost));
  }
  out.lines.push_back(
      {"energy", dollars(product(owned.energy_per_hour, hours)),
       fmt::format("{:.0f} kW x PUE {:.2f} x {:.0f} h x ${:.3f}/kWh", in.draw.it.mid.value() / 1000,
                   pue_of(path, in.workstation, in.pue, f).mid, hours.mid, in.grid.price.mid.value() * 3.6e6),
       fmt::format("grid region {}", in.grid.code)});
  out.to_raise = Dollars(owned.hardware.mid + owned.network.mid + owned.building.mid);
}

struct Rent {
  Band<double> per_hour;  // per accelerator
  std::optional<Offer> offer;
  std::string source;
  bool found = false;
};

Rent rent_of(PathKind path, const MoneyInput& in, const std::vector<Offer>& all, const FigureBook& f) {
  Rent rent;
  const auto scaled = [&](Band<double> discount) {
    return Band<double>{rent.per_hour.low * (1 - discount.low), rent.per_hour.mid * (1 - discount.mid),
                        rent.per_hour.high * (1 - discount.high)};
  };
  if (in.dollars_per_hour) {
    rent.per_hour = Band<double>::exactly(*in.dollars_per_hour);
    rent.source = "price given by the user";
    rent.found = true;
    return rent;
  }
  std::vector<Offer> offers = offers_for(all, in.accelerator);
  if (!in.cloud.empty()) std::erase_if(offers, [&](const Offer& o) { return o.cloud != in.cloud; });
  std::vector<double> prices;
  for (const Offer& o : offers) {
    if (path == PathKind::kSpot) {
      if (!o.spot_low) continue;
      prices.push_back((*o.spot_low + *o.spot_high) / 2);
      if (!rent.offer || *o.spot_low < *rent.offer->spot_low) rent.offer = o;
      rent.per_hour.low = prices.size() == 1 ? *o.spot_low : std::min(rent.per_hour.low, *o.spot_low);
      rent.per_hour.high = std::max(rent.per_hour.high, *o.spot_high);
    } else if (o.on_demand) {
      prices.push_back(*o.on_demand);
      if (!rent.offer) rent.offer = o;
      rent.per_hour.low = prices.size() == 1 ? *o.on_demand : std::min(rent.per_hour.low, *o.on_demand);
      rent.per_hour.high = std::max(rent.per_hour.high, *o.on_demand);
    }
  }
  if (prices.empty()) return rent;
  std::sort(prices.begin(), prices.end());
  rent.per_hour.mid = prices[prices.size() / 2];
  rent.found = true;
  rent.source =
      fmt::format("{} offers, {} the cheapest ({})", prices.size(), rent.offer->cloud, rent.offer->source);
  if (path == PathKind::kReserved1Year) rent.per_hour = scaled(f.at("rent.reserved_1y_discount"));
  if (path == PathKind::kReserved3Years) rent.per_hour = scaled(f.at("rent.reserved_3y_discount"));
  if (path == PathKind::kMarketplace) rent.per_hour = scaled(f.at("rent.marketplace_discount"));
  return rent;
}

void price_rented(PathKind path, const MoneyInput& in, const std::vector<Offer>& offers, const FigureBook& f,
                  PathCost& out) {
  const Rent rent = rent_of(path, in, offers, f);
  if (!rent.found) {
    out.possible = false;
    out.reason = fmt::format(
        "no {}offer for {}{} in the price catalog: give one with --price or a SkyPilot file with "
        "--prices",
        path == PathKind::kSpot ? "spot " : "", in.accelerator, in.cloud.empty() ? "" : " at " + in.cloud);
    return;
  }
  out.offer = rent.offer;
  // Whole instances are rented.
  const double per_instance =
      rent.offer && rent.offer->count > 1 && rent.offer->count <= 16 ? rent.offer->count : 1;
  const double rented = std::ceil(static_cast<double>(in.accelerators) / per_instance) * per_instance;
  Band<double> hours = wall_hours(in);
  double term = 0;
  if (path == PathKind::kReserved1Year) term = kHoursPerYear;
  if (path == PathKind::kReserved3Years) term = 3 * kHoursPerYear;
  const Band<double> used = hours;
  if (term > 0) hours = {std::max(hours.low, term), std::max(hours.mid, term), std::max(hours.high, term)};
  else
    hours = product(hours,
                    Band<double>{1 + f.at("rent.setup_idle_share").low, 1 + f.at("rent.setup_idle_share").mid,
                                 1 + f.at("rent.setup_idle_share").high});
  const std::string discount = path == PathKind::kReserved1Year    ? "; rent.reserved_1y_discount"
                               : path == PathKind::kReserved3Years ? "; rent.reserved_3y_discount"
                               : path == PathKind::kMarketplace    ? "; rent.marketplace_discount"
                                                                   : "";
  out.lines.push_back(
      {"machines", dollars(product(rent.per_hour, hours) * rented),
       fmt::format("{:.0f} accelerators x {:.0f} h x ${:.2f}", rented, hours.mid, rent.per_hour.mid),
       rent.source + discount});
  if (term > 0) {
    out.to_raise = out.lines[0].cost.mid;
    out.reason = fmt::format("the whole term is paid; the run uses {:.0f} % of it",
                             100 * std::min(1.0, used.mid / term));
  }
  const Band<double> months = hours / kHoursPerMonth;
  if (in.storage_tb > 0)
    out.lines.push_back({"storage",
                         dollars(product(f.at("rent.storage_per_tb_month"), months) * in.storage_tb),
                         fmt::format("{:.1f} TB x {:.1f} months x ${:.0f}", in.storage_tb, months.mid,
                                     f.at("rent.storage_per_tb_month").mid),
                         "rent.storage_per_tb_month"});
  if (in.data_in_gb > 0 || in.data_out_gb > 0)
    out.lines.push_back(
        {"data transfer",
         dollars(f.at("rent.ingress_per_gb") * in.data_in_gb + f.at("rent.egress_per_gb") * in.data_out_gb),
         fmt::format("{:.0f} GB in x ${:.3f}, {:.0f} GB out x ${:.3f}", in.data_in_gb,
                     f.at("rent.ingress_per_gb").mid, in.data_out_gb, f.at("rent.egress_per_gb").mid),
         "rent.ingress_per_gb, rent.egress_per_gb"});
  if (path == PathKind::kOnDemand) {
    const Band<double>& most = f.at("share.on_demand_max_accelerators");
    if (static_cast<double>(in.accelerators) > most.mid)
      out.reason =
          fmt::format("{} accelerators are seldom free on demand in one place (doubtful above {:.0f})",
                      in.accelerators, most.mid);
  }
  if (path == PathKind::kMarketplace && in.accelerators > 4 * in.accelerators_per_node)
    out.reason = "hosts seldom share a fast network: plan for slow links between nodes (DiLoCo)";
}

}  // namespace

std::string_view to_string(PathKind path) {
  switch (path) {
    case PathKind::kHyperscale:
      return "hyperscale";
    case PathKind::kOnPremises:
      return "on-premises";
    case PathKind::kOnDemand:
      return "on-demand";
    case PathKind::kReserved1Year:
      return "reserved-1y";
    case PathKind::kReserved3Years:
      return "reserved-3y";
    case PathKind::kSpot:
      return "spot";
    case PathKind::kMarketplace:
      return "marketplace";
    case PathKind::kEdge:
      return "edge";
  }
  return "?";
}

PathKind parse_path(std::string_view text) {
  std::vector<std::string> known;
  for (const PathKind path : kAllPaths) {
    if (to_string(path) == text) return path;
    known.emplace_back(to_string(path));
  }
  fail(ErrorKind::kUsage, "unknown deployment path '{}'; nearest: {}. All: {}", text,
       nearest_names(text, known, 1).front(), fmt::join(known, ", "));
}

bool is_owned(PathKind path) {
  return path == PathKind::kHyperscale || path == PathKind::kOnPremises || path == PathKind::kEdge;
}

Band<double> pue_of(PathKind path, bool workstation, std::optional<double> given, const FigureBook& f) {
  if (given) return Band<double>::exactly(*given);
  if (workstation || path == PathKind::kEdge) return f.at("pue.home");
  if (path == PathKind::kOnPremises) return f.at("pue.on_premises");
  if (path == PathKind::kMarketplace) return f.at("pue.colocation");
  return f.at("pue.hyperscale");
}

PathCost price_path(PathKind path, const MoneyInput& in, const std::vector<Offer>& offers,
                    const FigureBook& f) {
  if (!(in.utilisation > 0 && in.utilisation <= 1))
    fail(ErrorKind::kUsage, "utilisation of owned machines = {}: expected more than 0 and at most 1",
         in.utilisation);
  if (in.dollars_per_hour && !(*in.dollars_per_hour >= 0 && std::isfinite(*in.dollars_per_hour)))
    fail(ErrorKind::kUsage, "price = {} $/h: expected a number that is not negative", *in.dollars_per_hour);
  if (!(in.wall.low.value() >= 0) || !(in.data_in_gb >= 0) || !(in.data_out_gb >= 0) || !(in.storage_tb >= 0))
    fail(ErrorKind::kUsage, "duration, data and storage cannot be negative");
  PathCost out;
  out.path = path;
  out.wall = in.wall;
  const char* lead[] = {"lead.hyperscale_days",  "lead.on_premises_days", "lead.on_demand_days",
                        "lead.reserved_days",    "lead.reserved_days",    "lead.spot_days",
                        "lead.marketplace_days", "lead.edge_days"};
  out.lead_days = f.at(lead[static_cast<size_t>(path)]);
  if (path == PathKind::kEdge && !in.workstation && in.accelerators > in.accelerators_per_node) {
    out.possible = false;
    out.reason =
        fmt::format("{} accelerators of {} do not stand at an edge site", in.accelerators, in.accelerator);
    return out;
  }
  if (is_owned(path)) price_owned(path, in, f, out);
  else price_rented(path, in, offers, f, out);
  out.energy = energy_use(in.draw, in.wall, pue_of(path, in.workstation, in.pue, f), in.grid, f);
  for (const CostLine& line : out.lines) out.total = out.total + line.cost;
  const double accelerator_hours = in.wall.mid.value() / 3600 * static_cast<double>(in.accelerators);
  if (accelerator_hours > 0)
    out.per_accelerator_hour =
        Band<double>{out.total.low.value(), out.total.mid.value(), out.total.high.value()} /
        accelerator_hours;
  return out;
}

BreakEven break_even(PathKind path, double rent_per_hour, const MoneyInput& in, const FigureBook& f) {
  if (!is_owned(path)) fail(ErrorKind::kUsage, "break-even needs an owned path, not {}", to_string(path));
  if (!(rent_per_hour >= 0)) fail(ErrorKind::kUsage, "price = {} $/h: it cannot be negative", rent_per_hour);
  const Owned owned = owned_costs(path, in, f);
  const double n = static_cast<double>(in.accelerators);
  const double fixed = owned.per_hour_fixed.mid / n, energy = owned.energy_per_hour.mid / n;
  BreakEven out;
  constexpr double kNever = std::numeric_limits<double>::infinity();
  out.utilisation = rent_per_hour > energy ? fixed / (rent_per_hour - energy) : kNever;
  // Bought whole, resold only at the end of its life: what is lost up front against what is saved a month.
  const double up_front =
      (owned.hardware.mid + owned.network.mid) / n * (1 - f.at("finance.residual_share").mid) +
      owned.building.mid / n;
  const double depreciation =
      capital_per_hour(owned.hardware + owned.network, f.at("finance.hardware_years"),
                       f.at("finance.residual_share"), f.at("finance.capital_rate"))
              .mid /
          n +
      capital_per_hour(owned.building, f.at("finance.facility_years"), {}, f.at("finance.capital_rate")).mid /
          n;
  const double running = fixed - depreciation;
  const double saved = (rent_per_hour - energy) * in.utilisation - running;  // per hour of life
  out.months = saved > 0 ? up_front / saved / kHoursPerMonth : kNever;
  out.how = fmt::format(
      "owning costs ${:.2f} per hour of life and ${:.2f} of energy per hour of work; rent ${:.2f} per hour "
      "of work",
      fixed, energy, rent_per_hour);
  return out;
}

}  // namespace stoker::plan
