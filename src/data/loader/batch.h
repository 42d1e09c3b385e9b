// data/loader/batch.h
// What a trainer is fed, and the seam it comes through.
#pragma once
#include <cstdint>
#include <vector>

namespace stoker::data {

// Every vector is row-major [rows, length].
struct Batch {
  int64_t rows = 0, length = 0;
  std::vector<int32_t> tokens;
  std::vector<int32_t> targets;         // -1: no loss here
  std::vector<int32_t> positions;       // for RoPE and learned positions
  std::vector<int32_t> document_start;  // index in the row of the first key that this token may attend to
  void shape(int64_t new_rows, int64_t new_length);
  bool operator==(const Batch&) const = default;
};

// Sample n, whoever asks and whenever: the same row. Threads: any number at once.
class SampleSource {
 public:
  virtual ~SampleSource() = default;
  // Samples first_sample .. first_sample + rows - 1.
  virtual void fill(uint64_t first_sample, int64_t rows, Batch& batch) const = 0;
  virtual void will_fill(uint64_t first_sample, int64_t rows) const = 0;  // a hint; does not block
};

}  // namespace stoker::data
