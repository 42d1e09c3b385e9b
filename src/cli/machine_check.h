// cli/machine_check.h
// What this machine is, what of it this process may use, and how fast it is: measured, not read from a data sheet.
// Cost          look(): milliseconds. measure(): about four seconds and a file of 128 MB in `directory`, removed again
// Errors        none: what cannot be had stays empty; the disk that cannot be written is a warning
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace stoker::cli {

struct Machine {
  std::string cpu, isa, clock_source, huge_pages, governor;
  int threads = 0;
  double load = 0;  // runnable processes, mean of the last minute
  uint64_t memory_bytes = 0, available_bytes = 0;
  std::optional<uint64_t> memory_limit;  // of the control group
  std::optional<double> cpu_limit;       // processors' worth of time that the control group allows
  uint64_t open_files_limit = 0;
  std::optional<bool> clock_synchronized;
};

struct Speeds {
  double memory_bytes_per_s = 0;  // triad
  double bf16_flops = 0, fp32_flops = 0;
  double disk_write_bytes_per_s = 0, sync_s = 0;  // with fsync; median of small synced writes
  uint64_t disk_free_bytes = 0;
  std::string disk_error;
};

Machine look();
Speeds measure(const std::string& directory);
// What is worth a user's attention, each with what to do.
std::vector<std::string> warnings(const Machine& machine, const std::optional<Speeds>& speeds);

}  // namespace stoker::cli
