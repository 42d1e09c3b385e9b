// The reader of log.jsonl: anything it accepts must also make a page and a plot.
#include "base/error.h"
#include "dash/run_report.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto log = stoker::dash::parse_run_log({reinterpret_cast<const char*>(data), size}, "fuzz");
    (void)stoker::dash::report_terminal(log, "fuzz", 60);
    (void)stoker::dash::report_html(log, "fuzz", "");
  } catch (const stoker::Error& e) {
    if (e.kind() != stoker::ErrorKind::kData) throw;
  }
  return 0;
}
