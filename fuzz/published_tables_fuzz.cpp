// Any bytes as a table of published operations, failures or energy: a Data error, or every row with a finite
// prediction or its reason.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "plan/published_energy.h"
#include "plan/published_failures.h"
#include "plan/published_ops.h"

namespace {

using namespace stoker;

template <typename Check>
void check(std::string_view text, const Check& rows_of) {
  try {
    rows_of(plan::CsvTable("fuzz", text));
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
}

void check_ops(const std::vector<plan::OpCheck>& rows) {
  for (const plan::OpCheck& r : rows) STOKER_CHECK(!r.reason.empty() || std::isfinite(r.predicted_s));
  plan::summarise(rows);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  check(text, [](const plan::CsvTable& t) { check_ops(plan::check_products(t)); });
  check(text, [](const plan::CsvTable& t) { check_ops(plan::check_collectives(t)); });
  check(text, [](const plan::CsvTable& t) {
    for (const plan::FailureCheck& r : plan::check_failures(t))
      STOKER_CHECK(!r.reason.empty() || !std::isnan(r.predicted.mid));
  });
  check(text, [](const plan::CsvTable& t) {
    const auto watts = [](std::string_view) { return std::optional<double>(700); };
    const auto hours = [](std::string_view, double, double, std::string_view, std::optional<double>) {
      return plan::HoursEstimate{1000, "fuzz"};
    };
    const plan::EnergyValidation v =
        plan::summarise(plan::check_energy(t, plan::FigureBook::built_in(), watts, hours));
    STOKER_CHECK(v.predicted <= v.checks.size());
  });
  return 0;
}
