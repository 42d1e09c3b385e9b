// train/ledger.h
// Which samples each finished batch consumed, and who computed them: ledger.jsonl in the run directory, one line per batch,
// written by rank 0 when the batch is committed. A batch that had to be repeated after a failure is not in it twice.
//   {"batch":7,"step":8,"first_sample":56,"samples":8,"generation":3,"workers":["w0.0","w1.1"]}
// One process without a team: generation 0 and no workers. With a mixture also "sources":{"code":[17,2],"web":[39,6]}: the first sample, and how many, of each source's own numbering.
// The line that a dying rank 0 could not write is written by the next one: batches are a pure function of their number.
// Errors   Storage: a line could not be written whole (full disk); the batch must not be told of. What is torn then is cut off when
//          the file is next opened, and the line filled in.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/file_system.h"

namespace stoker::train {

// Of a mixture: samples first .. first + samples - 1 of a source's own numbering.
struct SourceShare {
  std::string name;
  uint64_t first = 0, samples = 0;
};

struct LedgerLine {
  uint64_t batch = 0, first_sample = 0, samples = 0, generation = 0;
  int64_t step = 0;
  std::vector<std::string> workers;
  std::vector<SourceShare> sources;
};

class Ledger {
 public:
  // Opens it for rank 0 when `next_batch` is the next to be committed: cuts off what is beyond (a resume from an older checkpoint)
  // and a torn last line, and fills in what is missing before. The file is a new one under the old name: what another process
  // that has the old one open still writes, as a stopped rank 0 does that wakes after it was given up, is not in it.
  // sources_of: of a batch; for the lines that are filled in.
  Ledger(io::FileSystem& fs, const std::string& path, uint64_t next_batch, uint64_t samples_per_batch,
         uint64_t generation, const std::function<std::vector<SourceShare>(uint64_t)>& sources_of = {});
  void write(const LedgerLine& line);
  void close();  // synced: what a network file system says only now is said too

 private:
  std::string path_;
  std::unique_ptr<io::WritableFile> file_;
};

// Batches written so far, from the last lines alone; safe while a run appends.
uint64_t batches_in_ledger(const std::string& path);

struct LedgerCheck {
  uint64_t batches = 0, lost = 0, repeated = 0;  // samples
  struct Source {
    uint64_t samples = 0, lost = 0, repeated = 0;  // of its own numbering, from 0 to the last one seen
  };
  std::map<std::string, Source> sources;
};
// Every sample of [0, batches * samples_per_batch) exactly once?
LedgerCheck check_ledger(const std::string& path, uint64_t batches, uint64_t samples_per_batch);

}  // namespace stoker::train
