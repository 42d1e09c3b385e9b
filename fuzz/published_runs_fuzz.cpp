// Any bytes as a table of published runs: a Data error, or every row read, each predicted or with its reason.
#include <cmath>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "plan/validate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  try {
    const plan::CsvTable table("fuzz", {reinterpret_cast<const char*>(data), size});
    const std::vector<plan::PublishedRun> runs = plan::read_published_runs(table, "fuzz");
    const plan::Validation v = plan::validate_runs(runs, plan::fitted_efficiency());
    STOKER_CHECK(v.rows.size() == table.rows());
    for (const plan::RowResult& r : v.rows)
      STOKER_CHECK(r.compared ? std::isfinite(r.error) : !r.reason.empty() || r.run->failed);
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
