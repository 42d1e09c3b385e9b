#include "train/ledger.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/file_system.h"

namespace stoker::train {
namespace {

nlohmann::json to_json(const LedgerLine& l) {
  nlohmann::json j{{"batch", l.batch},
                   {"step", l.step},
                   {"first_sample", l.first_sample},
                   {"samples", l.samples},
                   {"generation", l.generation},
                   {"workers", l.workers}};
  for (const auto& s : l.sources) j["sources"][s.name] = {s.first, s.samples};
  return j;
}

}  // namespace

Ledger::Ledger(const std::string& path, uint64_t next_batch, uint64_t samples_per_batch, uint64_t generation,
               const std::function<std::vector<SourceShare>(uint64_t)>& sources_of) {
  std::string kept;
  uint64_t expected = 0;
  {
    std::ifstream in(path);
    for (std::string line; std::getline(in, line) && !in.eof();) {
      const auto j = nlohmann::json::parse(line, nullptr, false);
      if (j.is_discarded() || j.value("batch", ~uint64_t{0}) != expected || expected >= next_batch) break;
      kept += line + "\n";
      ++expected;
    }
  }
  for (; expected < next_batch; ++expected) {
    LedgerLine line{expected, expected * samples_per_batch, samples_per_batch, generation, 0, {}, {}};
    if (sources_of) line.sources = sources_of(expected);
    kept += to_json(line).dump() + "\n";
  }
  io::write_file_atomic(io::real_file_system(), path, kept);
  file_ = std::fopen(path.c_str(), "ae");
  if (file_ == nullptr) fail(ErrorKind::kStorage, "cannot append to {}", path);
}

Ledger::~Ledger() { std::fclose(file_); }

void Ledger::write(const LedgerLine& line) {
  const std::string text = to_json(line).dump() + "\n";
  std::fwrite(text.data(), 1, text.size(), file_);
  std::fflush(file_);
}

LedgerCheck check_ledger(const std::string& path, uint64_t batches, uint64_t samples_per_batch) {
  std::vector<uint8_t> seen(batches * samples_per_batch, 0);
  std::map<std::string, std::vector<std::pair<uint64_t, uint64_t>>> ranges;  // of each source: first, end
  LedgerCheck out;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (j.is_discarded()) continue;
    ++out.batches;
    const uint64_t first = j.at("first_sample"), count = j.at("samples");
    for (uint64_t s = first; s < first + count; ++s) {
      if (s >= seen.size()) continue;
      out.repeated += seen[s] != 0;
      seen[s] = 1;
    }
    if (j.contains("sources"))
      for (const auto& [name, range] : j["sources"].items())
        ranges[name].emplace_back(range.at(0), range.at(0).get<uint64_t>() + range.at(1).get<uint64_t>());
  }
  out.lost = static_cast<uint64_t>(std::count(seen.begin(), seen.end(), 0));
  for (auto& [name, list] : ranges) {
    auto& source = out.sources[name];
    std::sort(list.begin(), list.end());
    uint64_t end = 0;
    for (const auto& [first, stop] : list) {
      source.samples += stop - first;
      if (first > end) source.lost += first - end;
      else source.repeated += std::min(end, stop) - first;
      end = std::max(end, stop);
    }
  }
  return out;
}

}  // namespace stoker::train
