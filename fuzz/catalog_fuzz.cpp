// Any bytes as the catalog's accelerators, models and software: a Data error, or entries that plans can be made of.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "plan/catalog_tables.h"
#include "spec/model_spec.h"

namespace {

using namespace stoker;

template <typename Parse>
void data_error_or(Parse parse) {
  try {
    parse();
  } catch (const Error& e) {
    STOKER_CHECK(e.kind() == ErrorKind::kData);
  }
}

template <typename T>
void names_lead_to_entries(const plan::CatalogTable<T>& table) {
  for (const auto& [name, entry] : table.names) {
    STOKER_CHECK(entry < table.entries.size());
    STOKER_CHECK(table.find(name) == &table.entries[entry]);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  data_error_or([&] {
    const auto table = plan::parse_accelerators(text, "fuzz.csv");
    names_lead_to_entries(table);
    for (const plan::CatalogAccelerator& a : table.entries) validate(plan::make_hardware(a, 8));
  });
  data_error_or([&] {
    const auto table = plan::parse_models(text, "fuzz.csv");
    names_lead_to_entries(table);
    for (const plan::CatalogModel& m : table.entries) validate(m.spec);
  });
  data_error_or([&] {
    for (const plan::SoftwareRule& rule : plan::parse_software(text, "fuzz.csv")) {
      STOKER_CHECK(!rule.pattern.empty());
      STOKER_CHECK(rule.habits.zero_stage >= 0 && rule.habits.zero_stage <= 3);
    }
  });
  return 0;
}
