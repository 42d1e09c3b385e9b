// cli/flight_report.h
// The flight records of all workers side by side: who was in which collective, by its number. Taken by the coordinator when a generation
// breaks (RUN/flight/generation-N.json, the newest kKeptFailures are kept) and printed by `stoker flight`.
// A worker whose files are elsewhere (stoker join --run) is missing here; its last collective is in the event that names it.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "elastic/membership.h"

namespace stoker::cli {

inline constexpr size_t kKeptFailures = 32;

// RUN/flight/*.bin of the newest generation that any of them is in. Keys: docs/json.md, stoker flight.
nlohmann::json gather_flight(const std::string& run_dir);
// The newest failure on record; null when there is none.
nlohmann::json last_failure(const std::string& run_dir);
std::string flight_page(const nlohmann::json& record);

// Given the coordinator's events as they come: one file for each generation that breaks.
class FlightCollector {
 public:
  explicit FlightCollector(std::string run_dir) : run_dir_(std::move(run_dir)) {}
  void observe(const std::vector<elastic::Event>& events);

 private:
  std::string run_dir_;
  nlohmann::json record_;  // of generation_
  uint64_t generation_ = 0;
};

}  // namespace stoker::cli
