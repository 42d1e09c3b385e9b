#include "plan/published_energy.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "plan/energy.h"
#include "plan/prices.h"

namespace stoker::plan {
namespace {

// An input of a formula: its value, and whether the row printed it.
struct Input {
  double value = 0;
  bool printed = true;
  std::string text;
};

class Row {
 public:
  Row(const CsvTable& t, size_t r, const FigureBook& f) : t_(t), r_(r), figures_(f) {}
  std::string run() const { return std::string(t_.text(r_, "run")); }
  std::string text(const char* column) const { return std::string(t_.text(r_, column)); }
  std::optional<double> number(const char* column) const { return t_.number(r_, column); }

  std::optional<Input> count_and_days() const {
    const auto n = number("n_accelerators"), days = number("wall_days");
    if (!n || !days) return std::nullopt;
    return Input{*n * *days * 24, true, fmt::format("{:.0f} x {:g} days x 24", *n, *days)};
  }
  std::optional<Input> hours() const {
    if (const auto h = number("accelerator_hours")) return Input{*h, true, fmt::format("{:.0f} h", *h)};
    return count_and_days();
  }
  Input pue() const {
    if (const auto p = number("pue")) return {*p, true, fmt::format("PUE {:g}", *p)};
    const Band<double>& p = figures_.at("pue.hyperscale");
    return {p.mid, false, fmt::format("PUE {:g} (assumed)", p.mid)};
  }
  // The source's own account of its energy says whether the site's overhead is in it.
  bool energy_has_pue() const {
    const std::string method = text("energy_method");
    if (method.find("node power") != std::string::npos) return false;
    return method.find("PUE") != std::string::npos || number("pue").has_value()
               ? method != "hours*TDP"
               : method.find("chip power") != std::string::npos;
  }
  std::optional<Input> carbon() const {
    if (const auto c = number("carbon_intensity_g_per_kWh"))
      return Input{*c, true, fmt::format("{:g} g/kWh", *c)};
    return std::nullopt;
  }
  // "$2 per H800-hour", "$200k at $2/h"
  std::optional<Input> hourly_price() const {
    const std::string notes = text("notes");
    for (size_t at = notes.find('$'); at != std::string::npos; at = notes.find('$', at + 1)) {
      double value = 0;
      const char* begin = notes.data() + at + 1;
      const auto [end, error] = std::from_chars(begin, notes.data() + notes.size(), value);
      if (error != std::errc()) continue;
      const std::string_view rest(end, notes.data() + notes.size());
      const std::string_view unit = rest.substr(0, 24);
      if (rest.starts_with("/h") ||
          (rest.starts_with(" per ") && unit.find("hour") != std::string_view::npos))
        return Input{value, true, fmt::format("${:g}/h", value)};
    }
    return std::nullopt;
  }

 private:
  const CsvTable& t_;
  size_t r_;
  const FigureBook& figures_;
};

EnergyCheck begin(const Row& row, const char* quantity, double published) {
  EnergyCheck check;
  check.run = row.run();
  check.quantity = quantity;
  check.published = published;
  return check;
}

void conclude(EnergyCheck& check, double value, bool printed, std::string how) {
  check.predicted = value;
  check.error = value / check.published - 1;
  check.inputs_printed = printed;
  check.how = std::move(how);
}

// Watts per accelerator: printed; else as other rows of the file measured for the same accelerator; else the
// power model.
std::optional<Input> watts_of(const Row& row, const std::map<std::string, std::vector<double>>& measured,
                              const FigureBook& figures, const MaximumWatts& maximum) {
  if (const auto w = row.number("W_per_accelerator_used")) return Input{*w, true, fmt::format("{:g} W", *w)};
  const std::string accelerator = row.text("accelerator");
  if (const auto it = measured.find(accelerator); it != measured.end()) {
    std::vector<double> values = it->second;
    std::sort(values.begin(), values.end());
    const double w = values[values.size() / 2];
    return Input{w, false,
                 fmt::format("{:.0f} W (assumed: median of {} measured runs on it)", w, values.size())};
  }
  if (const auto max = maximum(accelerator)) {
    PowerInput in;
    in.accelerator_max = Watts(*max);
    const double w = node_watts_per_accelerator(in, figures).mid;
    return Input{w, false, fmt::format("{:.0f} W (assumed: power model, host included)", w)};
  }
  return std::nullopt;
}

void check_hours(const Row& row, const PlannedHours& planned, std::vector<EnergyCheck>& out) {
  const auto published = row.number("accelerator_hours");
  if (!published || *published <= 0) return;
  if (const auto identity = row.count_and_days()) {
    EnergyCheck check = begin(row, "accelerator-hours", *published);
    conclude(check, identity->value, true, identity->text);
    out.push_back(std::move(check));
  }
  EnergyCheck check = begin(row, "accelerator-hours, planned", *published);
  const auto parameters = row.number("params_B"), tokens = row.number("tokens_B");
  if (!parameters || !tokens) {
    check.how =
        fmt::format("no prediction: {} not published", !parameters && !tokens ? "parameters and tokens are"
                                                       : tokens               ? "parameters are"
                                                                              : "tokens are");
  } else {
    const HoursEstimate estimate =
        planned(row.run(), *parameters, *tokens, row.text("accelerator"), row.number("n_accelerators"));
    if (estimate.hours) conclude(check, *estimate.hours, false, estimate.how);
    else check.how = "no prediction: " + estimate.how;
  }
  out.push_back(std::move(check));
}

std::optional<Input> energy_of(const Row& row, const std::map<std::string, std::vector<double>>& measured,
                               const FigureBook& figures, const MaximumWatts& maximum, bool with_pue) {
  const auto hours = row.hours();
  const auto watts = watts_of(row, measured, figures, maximum);
  if (!hours || !watts) return std::nullopt;
  Input pue{1, true, ""};
  if (with_pue) pue = row.pue();
  return Input{hours->value * watts->value * pue.value / 1e6, hours->printed && watts->printed && pue.printed,
               fmt::format("{} x {}{}{}", hours->text, watts->text, pue.text.empty() ? "" : " x ", pue.text)};
}

void check_energy_row(const Row& row, const std::map<std::string, std::vector<double>>& measured,
                      const FigureBook& figures, const MaximumWatts& maximum, std::vector<EnergyCheck>& out) {
  const auto mwh = row.number("energy_MWh"), tonnes = row.number("tCO2e"), cost = row.number("cost_usd");
  const auto hours = row.hours();
  if (mwh && *mwh > 0) {
    EnergyCheck check = begin(row, "energy MWh", *mwh);
    if (const auto e = energy_of(row, measured, figures, maximum, row.energy_has_pue()))
      conclude(check, e->value, e->printed, e->text);
    else
      check.how = fmt::format("no prediction: {}",
                              !hours ? "neither accelerator-hours nor count and days are published"
                                     : "the accelerator's power is not known");
    out.push_back(std::move(check));
  }
  if (tonnes && *tonnes > 0) {
    EnergyCheck check = begin(row, "tCO2e", *tonnes);
    std::optional<Input> energy;
    if (mwh) energy = Input{*mwh, true, fmt::format("{:g} MWh", *mwh)};
    else energy = energy_of(row, measured, figures, maximum, true);
    auto carbon = row.carbon();
    if (!carbon) {
      const GridRegion us = grid_region("us");
      carbon = Input{us.carbon_g_per_kWh, false,
                     fmt::format("{:g} g/kWh (assumed: {})", us.carbon_g_per_kWh, us.name)};
    }
    if (energy)
      conclude(check, energy->value * carbon->value / 1000, energy->printed && carbon->printed,
               energy->text + " x " + carbon->text);
    else check.how = "no prediction: neither energy nor accelerator-hours and power are published";
    out.push_back(std::move(check));
  }
  if (cost && *cost > 0) {
    EnergyCheck check = begin(row, "cost USD", *cost);
    auto price = row.hourly_price();
    if (!price) {
      const auto offers = offers_for(built_in_offers(), row.text("accelerator"));
      if (!offers.empty() && offers.front().on_demand)
        price = Input{*offers.front().on_demand, false,
                      fmt::format("${:.2f}/h (assumed: cheapest offer, {})", *offers.front().on_demand,
                                  offers.front().cloud)};
    }
    if (hours && price)
      conclude(check, hours->value * price->value, price->printed, hours->text + " x " + price->text);
    else
      check.how = fmt::format("no prediction: {}", hours ? "no price per hour is published or in the catalog"
                                                         : "accelerator-hours are not published");
    out.push_back(std::move(check));
  }
}

// Measured node power: u is the share of time spent computing, the accelerator-hours of the same benchmark on
// one node over those here.
std::vector<EnergyCheck> check_node_power(const CsvTable& t, const FigureBook& figures,
                                          const MaximumWatts& maximum) {
  std::map<std::string, double> single;
  const auto hours = [&](size_t r) {
    return t.required_number(r, "run_minutes") * t.required_number(r, "n_accelerators");
  };
  const auto key = [&](size_t r) {
    return std::string(t.text(r, "benchmark")) + "/" + std::string(t.text(r, "accelerator"));
  };
  for (size_t r = 0; r < t.rows(); ++r)
    if (t.required_number(r, "nodes") == 1) single.emplace(key(r), hours(r));
  std::vector<EnergyCheck> out;
  for (size_t r = 0; r < t.rows(); ++r) {
    EnergyCheck check;
    check.run =
        fmt::format("MLPerf {} {} ({})", t.text(r, "mlperf"), t.text(r, "benchmark"), t.text(r, "system"));
    check.quantity = "node W per accelerator";
    check.published = t.required_number(r, "W_per_accelerator_node_share");
    if (const auto max = maximum(t.text(r, "accelerator"))) {
      PowerInput in;
      in.accelerator_max = Watts(*max);
      const auto it = single.find(key(r));
      if (it != single.end()) in.utilisation = std::min(1.0, it->second / hours(r));
      const Band<double> w = node_watts_per_accelerator(in, figures);
      conclude(
          check, w.mid, false,
          fmt::format("power model at {:.0f} % computing{}, band {:.0f} to {:.0f} W", in.utilisation * 100,
                      it == single.end() ? " (assumed: no single-node run of it)" : "", w.low, w.high));
    } else {
      check.how = "no prediction: the accelerator's power is not known";
    }
    out.push_back(std::move(check));
  }
  return out;
}

double interpolated_quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  // Linear between order statistics, so that the median of an even count is the mean of the middle two.
  const double at = q * static_cast<double>(values.size() - 1);
  const size_t i = static_cast<size_t>(at);
  const double next = values[std::min(i + 1, values.size() - 1)];
  return values[i] + (at - static_cast<double>(i)) * (next - values[i]);
}

}  // namespace

std::vector<EnergyCheck> check_energy(const CsvTable& table, const FigureBook& figures,
                                      const MaximumWatts& watts, const PlannedHours& planned) {
  if (table.has("W_per_accelerator_node_share")) return check_node_power(table, figures, watts);
  for (const char* column : {"run", "accelerator", "accelerator_hours", "energy_MWh"})
    table.require_column(column);
  std::map<std::string, std::vector<double>> measured;
  for (size_t r = 0; r < table.rows(); ++r)
    if (table.text(r, "energy_method").find("MEASURED average chip power") != std::string_view::npos)
      if (const auto w = table.number(r, "W_per_accelerator_used"))
        measured[std::string(table.text(r, "accelerator"))].push_back(*w);
  std::vector<EnergyCheck> out;
  for (size_t r = 0; r < table.rows(); ++r) {
    const Row row(table, r, figures);
    const size_t before = out.size();
    check_hours(row, planned, out);
    check_energy_row(row, measured, figures, watts, out);
    if (out.size() == before) {
      EnergyCheck nothing;
      nothing.run = row.run();
      nothing.quantity = "none";
      nothing.how = "the row states no accelerator-hours, energy, emissions or cost to compare with";
      out.push_back(std::move(nothing));
    }
  }
  return out;
}

EnergyValidation summarise(std::vector<EnergyCheck> checks) {
  EnergyValidation v;
  v.checks = std::move(checks);
  std::vector<double> all, printed;
  for (const EnergyCheck& c : v.checks) {
    if (!c.predicted) continue;
    all.push_back(std::abs(c.error));
    if (!c.inputs_printed) continue;
    printed.push_back(std::abs(c.error));
    if (std::abs(c.error) <= 0.10) ++v.printed_within_10_percent;
  }
  v.predicted = all.size();
  v.printed = printed.size();
  v.median_abs_error = interpolated_quantile(all, 0.5);
  v.p90_abs_error = interpolated_quantile(all, 0.9);
  v.printed_median_abs_error = interpolated_quantile(printed, 0.5);
  v.printed_max_abs_error = interpolated_quantile(printed, 1);
  return v;
}

}  // namespace stoker::plan
