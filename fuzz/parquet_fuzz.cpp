// A Parquet file from anywhere: records or a bad one, never a crash. Without Arrow there is nothing to read.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "data/corpus/parquet_reader.h"
#include "io/memory_file_system.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker::corpus;
  if (!parquet_built_in()) return 0;
  stoker::io::MemoryFileSystem fs;
  fs.create("f")->append(data, size);
  RecordOptions options;
  options.max_record_bytes = 4096;
  const auto reader = make_parquet_reader(fs, "f", options);
  RawRecord record;
  for (size_t rows = 0; rows < 100000 && reader->next(record); ++rows) {
    STOKER_CHECK(record.bytes.size() <= options.max_record_bytes, "{}", record.bytes.size());
    STOKER_CHECK(record.bad.empty() || record.bytes.empty());
  }
  return 0;
}
