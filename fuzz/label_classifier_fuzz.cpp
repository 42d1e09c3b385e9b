// A classifier file from anywhere: a Data error or a model that predicts; never a crash.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/hash.h"
#include "data/corpus/label_classifier.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker;
  // With a right checksum in place of the last bytes, so that what lies behind it is reached.
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.size() >= 8) {
    const uint64_t sum = hash64(std::string_view(bytes).substr(0, bytes.size() - 8));
    std::memcpy(bytes.data() + bytes.size() - 8, &sum, 8);
  }
  try {
    const auto model = corpus::LabelClassifier::parse(bytes, "fuzz");
    (void)model.predict("some words");
  } catch (const Error& e) {
    if (e.kind() != ErrorKind::kData) throw;
  }
  return 0;
}
