// Any bytes as a table: either a Data error or a table whose every cell can be read.
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "plan/csv.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const stoker::plan::CsvTable table("fuzz", {reinterpret_cast<const char*>(data), size});
    for (size_t row = 0; row < table.rows(); ++row)
      for (const std::string& column : table.columns()) {
        (void)table.text(row, column);
        try {
          (void)table.number(row, column);
        } catch (const stoker::Error&) {
        }
      }
  } catch (const stoker::Error&) {
  }
  return 0;
}
