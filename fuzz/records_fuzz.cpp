// A source file from anywhere, in every format: records or bad records, never a crash, never beyond the limits.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "data/corpus/factory_inputs.h"
#include "data/corpus/factory_records.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker::corpus;
  for (const char* format : {"text", "jsonl", "csv", "warc", "tar"}) {
    size_t at = 0;
    RecordOptions options;
    options.max_record_bytes = 4096;
    const auto reader = make_record_reader(
        format,
        [&](char* to, size_t bytes) {
          // In small pieces, so that every boundary is crossed.
          const size_t n = std::min<size_t>({bytes, size - at, 7});
          std::memcpy(to, data + at, n);
          at += n;
          return n;
        },
        options);
    RawRecord record;
    SourceRecipe source;
    for (size_t records = 0; reader->next(record); ++records) {
      STOKER_CHECK(record.bytes.size() <= options.max_record_bytes, "{}", record.bytes.size());
      STOKER_CHECK(record.bad.empty() || record.bytes.empty());
      STOKER_CHECK(records <= size + 2, "{} records in {} bytes", records, size);
      (void)open_record(std::move(record), 0, source);
    }
  }
  return 0;
}
