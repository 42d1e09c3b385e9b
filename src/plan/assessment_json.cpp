#include "plan/assessment_json.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace stoker::plan {
namespace {

using nlohmann::json;

json number(double v) { return std::isfinite(v) ? json(v) : json(nullptr); }
json number(std::optional<double> v) { return v ? number(*v) : json(nullptr); }

json band(Band<double> b, double scale = 1) {
  return {{"low", number(b.low * scale)}, {"mid", number(b.mid * scale)}, {"high", number(b.high * scale)}};
}
template <typename Q>
json band(Band<Q> b, double scale = 1) {
  return band(Band<double>{b.low.value(), b.mid.value(), b.high.value()}, scale);
}

constexpr double kPerDay = 1.0 / 86400, kPerMwh = 1.0 / 3.6e9;

}  // namespace

json to_json(const LayoutCandidate& c) {
  const LayoutSpec& l = c.run.layout;
  json terms;
  for (int t = 0; t < kStepTerms; ++t)
    terms[std::string(to_string(static_cast<StepTerm>(t)))] =
        c.prediction.step.terms[static_cast<size_t>(t)].value();
  json memory = json::array();
  for (const FootprintRow& row : c.prediction.memory.footprint.rows)
    memory.push_back({{"what", std::string(row.what)}, {"bytes", row.bytes.value()}});
  json limits = json::array();
  for (const Binding b : c.prediction.next_limits) limits.push_back(std::string(to_string(b)));
  return {{"layout",
           {{"data", l.data},
            {"tensor", l.tensor},
            {"pipeline", l.pipeline},
            {"context", l.context},
            {"expert", l.expert},
            {"zero_stage", l.zero_stage},
            {"virtual_stages", l.virtual_stages},
            {"sequence_parallel", l.sequence_parallel}}},
          {"description", describe(c.run)},
          {"micro_batch", c.run.batch.micro_batch},
          {"recompute", std::string(to_string(c.run.recompute))},
          {"step_seconds", c.prediction.step.total.value()},
          {"step_terms_seconds", std::move(terms)},
          {"tokens_per_second", c.prediction.tokens_per_second.value()},
          {"mfu", c.prediction.mfu},
          {"memory_peak_bytes", c.prediction.memory.peak.value()},
          {"memory_capacity_bytes", c.prediction.memory.capacity.value()},
          {"memory_verdict", std::string(to_string(c.prediction.memory.verdict))},
          {"memory_rows", std::move(memory)},
          {"binds", std::string(to_string(c.prediction.binds))},
          {"next_limits", std::move(limits)},
          {"error_band",
           {{"group", c.prediction.error_band_group},
            {"runs", c.prediction.error_band_runs},
            {"median", c.prediction.error_band},
            {"p90", c.prediction.error_band_p90}}}};
}

json to_json(const PathCost& c) {
  json lines = json::array();
  for (const CostLine& line : c.lines)
    lines.push_back(
        {{"name", line.name}, {"usd", band(line.cost)}, {"how", line.how}, {"source", line.source}});
  json out{{"path", std::string(to_string(c.path))}, {"possible", c.possible}, {"note", c.reason}};
  if (!c.possible) return out;
  out["usd"] = band(c.total);
  out["usd_per_accelerator_hour"] = band(c.per_accelerator_hour);
  out["usd_to_raise"] = c.to_raise.value();
  out["wall_days"] = band(c.wall, kPerDay);
  out["site_mwh"] = band(c.energy.site, 1 / 3.6e9);
  out["tonnes_co2e"] = band(c.energy.tonnes_co2);
  out["lead_days"] = band(c.lead_days);
  out["lines"] = std::move(lines);
  if (c.offer)
    out["offer"] = {{"cloud", c.offer->cloud},
                    {"instance", c.offer->instance},
                    {"region", c.offer->region},
                    {"source", c.offer->source},
                    {"on_demand_usd_per_accelerator_hour", number(c.offer->on_demand)},
                    {"spot_low_usd_per_accelerator_hour", number(c.offer->spot_low)}};
  return out;
}

json to_json(const Lever& lever) {
  json out{{"name", lever.name}, {"what", lever.what}, {"applies", lever.applies}};
  if (!lever.applies) {
    out["reason"] = lever.reason;
    return out;
  }
  out["time_factor"] = band(lever.time);
  out["energy_factor"] = band(lever.energy);
  out["money_factor"] = band(lever.money);
  out["memory_change_gib"] = lever.memory_gib;
  out["source"] = lever.source;
  return out;
}

json to_json(const Assessment& a) {
  const PlanRequest& r = a.request;
  json best = json::array(), paths = json::array(), limits = json::array(), components = json::object();
  for (const LayoutCandidate& c : a.layouts.best) best.push_back(to_json(c));
  for (const PathCost& c : a.paths) paths.push_back(to_json(c));
  for (const Limit& l : a.limits) limits.push_back({{"what", l.what}, {"met", l.met}, {"text", l.text}});
  for (const auto& [name, count] : a.goodput.failures_by_component) components[name] = count;
  return {{"name", r.name},
          {"model", r.model_name},
          {"parameters", a.parameters},
          {"active_parameters", a.active_parameters},
          {"tokens", r.tokens},
          {"accelerator", r.hardware.accelerator.name},
          {"accelerators", r.hardware.accelerators},
          {"precision", std::string(to_string(r.run.precision))},
          {"fits", a.fits},
          {"chosen", to_json(a.chosen)},
          {"layouts", std::move(best)},
          {"layouts_considered", a.layouts.considered},
          {"layouts_did_not_fit", a.layouts.did_not_fit},
          {"step_seconds", band(a.step)},
          {"error_band_median", a.chosen.prediction.error_band},
          {"error_band_p90", a.chosen.prediction.error_band_p90},
          {"steps", a.steps},
          {"work_days", band(a.work, kPerDay)},
          {"wall_days", band(a.wall, kPerDay)},
          {"finished_days",
           {{"p50", a.wall_p50.value() * kPerDay},
            {"p90", a.wall_p90.value() * kPerDay},
            {"p99", a.wall_p99.value() * kPerDay}}},
          {"accelerator_hours", band(a.wall, static_cast<double>(r.hardware.accelerators) / 3600)},
          {"failures",
           {{"expected", band(a.goodput.failures)},
            {"by_component", std::move(components)},
            {"job_mtbf_hours", number(a.goodput.mtbf_s / 3600)},
            {"goodput", band(a.goodput.goodput)},
            {"mean_goodput", a.goodput.mean_goodput},
            {"recovery", std::string(to_string(a.recovery.mode))},
            {"detect_seconds", a.recovery.detect_s},
            {"restart_seconds", a.recovery.restart_s},
            {"load_seconds", a.recovery.load_s},
            {"replace_seconds", a.recovery.replace_s},
            {"checkpoint_bytes", a.checkpoint_bytes},
            {"checkpoint_seconds", a.recovery.checkpoint_s},
            {"checkpoint_interval_seconds", a.goodput.interval_s},
            {"interval_young_seconds", a.goodput.cadence.young_s},
            {"interval_daly_seconds", a.goodput.cadence.daly_s},
            {"interval_exact_seconds", a.goodput.cadence.exact_s},
            {"lost_days",
             {{"checkpoints", a.goodput.checkpoint_s * kPerDay},
              {"lost_work", a.goodput.lost_work_s * kPerDay},
              {"outages", a.goodput.outage_s * kPerDay},
              {"degraded", a.goodput.degraded_s * kPerDay}}}}},
          {"energy",
           {{"it_mwh", band(a.energy.it, kPerMwh)},
            {"site_mwh", band(a.energy.site, kPerMwh)},
            {"tonnes_co2e", band(a.energy.tonnes_co2)},
            {"water_litres", band(a.energy.water_litres)},
            {"pue", band(a.pue)},
            {"grid", a.grid.code},
            {"grid_g_per_kwh", a.grid.carbon_g_per_kWh},
            {"watts_per_accelerator_and_host", band(a.draw.per_accelerator())},
            {"it_watts", band(a.draw.it)},
            {"accelerator_watts", band(a.draw.accelerators)},
            {"host_watts", band(a.draw.hosts)},
            {"network_watts", band(a.draw.network)},
            {"storage_watts", band(a.draw.storage)},
            {"computing_share", a.utilisation}}},
          {"site",
           {{"node_kw", a.racks.node_kw},
            {"nodes_per_rack", a.racks.nodes_per_rack},
            {"racks", a.racks.racks},
            {"rack_kw", a.racks.rack_kw},
            {"cooling", std::string(to_string(a.racks.cooling))},
            {"air_nodes_per_rack", a.racks.air_nodes_per_rack},
            {"site_mw", a.racks.site_mw}}},
          {"path", std::string(to_string(r.path))},
          {"cost", to_json(a.cost())},
          {"paths", std::move(paths)},
          {"returns",
           {{"loss", band(a.learned.loss)},
            {"compute_optimal_loss", band(a.learned.compute_optimal_loss)},
            {"compute_optimal_parameters", band(a.learned.optimal_parameters)},
            {"compute_optimal_tokens", band(a.learned.optimal_tokens)},
            {"epochs", a.learned.epochs},
            {"effective_tokens", a.learned.effective_tokens},
            {"more_tokens_than_exist", a.learned.more_than_exists},
            {"loss_per_doubling_of_tokens", band(a.learned.loss_per_doubling)},
            {"usd_per_millinat", band(a.learned.dollars_per_millinat)}}},
          {"limits", std::move(limits)},
          {"notes", r.notes},
          {"warnings", a.warnings}};
}

}  // namespace stoker::plan
