// Built when there is no Arrow (room.cmake).
#include "base/error.h"
#include "data/corpus/parquet_reader.h"

namespace stoker::corpus {

bool parquet_built_in() { return false; }

std::string parquet_support() {
  return "not built in: Debian has no Arrow C++ library; ./dev parquet fetches one and builds with it";
}

std::unique_ptr<RecordReader> make_parquet_reader(io::FileSystem&, const std::string& path,
                                                  const RecordOptions&) {
  fail(ErrorKind::kUsage, "{}: Parquet is {}. Or convert to JSON lines (docs/data-factory.md)", path,
       parquet_support());
}

}  // namespace stoker::corpus
