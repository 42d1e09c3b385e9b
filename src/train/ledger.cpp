#include "train/ledger.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace stoker::train {
namespace {

constexpr uint64_t kCopyBlock = 1 << 20;

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

uint64_t batch_of(const std::string& line) {
  const auto j = nlohmann::json::parse(line, nullptr, false);
  return j.is_discarded() ? ~uint64_t{0} : j.value("batch", ~uint64_t{0});
}

struct Tail {
  uint64_t next_batch = 0, bytes = 0;  // after the last whole line; its end
};
Tail read_tail(const std::string& path) {
  constexpr std::streamoff kEnough = 1 << 16;  // several lines
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return {};
  const std::streamoff size = in.tellg(), from = std::max<std::streamoff>(0, size - kEnough);
  std::string text(static_cast<size_t>(size - from), '\0');
  in.seekg(from);
  in.read(text.data(), size - from);
  const size_t end = text.rfind('\n');
  if (end == std::string::npos) return {};
  const size_t before = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
  if (before == std::string::npos && from > 0) return {~uint64_t{0}, 0};  // a very long line: read everything
  const size_t begin = before == std::string::npos ? 0 : before + 1;
  const uint64_t batch = batch_of(text.substr(begin, end - begin));
  if (batch == ~uint64_t{0}) return {~uint64_t{0}, 0};
  return {batch + 1, static_cast<uint64_t>(from) + end + 1};
}

}  // namespace

uint64_t batches_in_ledger(const std::string& path) {
  const Tail tail = read_tail(path);
  return tail.next_batch == ~uint64_t{0} ? 0 : tail.next_batch;
}

Ledger::Ledger(io::FileSystem& fs, const std::string& path, uint64_t next_batch, uint64_t samples_per_batch,
               uint64_t generation, const std::function<std::vector<SourceShare>(uint64_t)>& sources_of)
    : path_(path) {
  // After a loss the file is whole but for the last lines: only a resume from an older checkpoint has to read all of it.
  uint64_t keep = 0, expected = 0;
  if (const Tail tail = read_tail(path); tail.next_batch <= next_batch) {
    keep = tail.bytes, expected = tail.next_batch;
  } else {
    std::ifstream in(path);
    for (std::string line; expected < next_batch && std::getline(in, line) && !in.eof();) {
      if (batch_of(line) != expected) break;
      keep += line.size() + 1;
      ++expected;
    }
  }
  // A rank 0 that was given up may still have the file open, and write its line when it wakes: it keeps that file, the run
  // goes on in a copy that takes its name.
  const std::string fresh = path + ".new";
  file_ = fs.create(fresh);
  if (keep > 0) {
    const auto before = fs.open_read(path, io::Access::kSequential);
    std::string block;
    for (uint64_t at = 0; at < keep; at += block.size()) {
      block.resize(std::min<uint64_t>(keep - at, kCopyBlock));
      before->read_at(at, block.data(), block.size());
      file_->append(block);
    }
  }
  for (; expected < next_batch; ++expected) {
    LedgerLine line{expected, expected * samples_per_batch, samples_per_batch, generation, 0, {}, {}};
    if (sources_of) line.sources = sources_of(expected);
    write(line);
  }
  fs.rename(fresh, path);
}

void Ledger::write(const LedgerLine& line) {
  try {
    file_->append(to_json(line).dump() + "\n");
  } catch (const Error& e) {
    fail(e.kind(), "{}: batch {} could not be written down, so it does not count: {}", path_, line.batch,
         e.what());
  }
}

void Ledger::close() {
  file_->sync();
  file_->close();
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
