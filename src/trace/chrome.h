// trace/chrome.h
// Trace events as the JSON that Perfetto and chrome://tracing open: one track per process and kind of work, in microseconds from
// the earliest event. The format is Google's "Trace Event Format": complete events (X), instants (i) and names (M).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace stoker::trace {

struct ChromeSpan {
  std::string process, track, name;
  double start_unix_s = 0, seconds = 0;
  int64_t step = -1;  // -1: belongs to none
  std::string text;   // shown when it is clicked
};
struct ChromeInstant {
  std::string process, name, text;
  double unix_s = 0;
};

// Reads the lines of a SpanLog; a line that a crash has torn is left out.
std::vector<ChromeSpan> read_spans(const std::string& path, const std::string& process);
std::string chrome_trace(const std::vector<ChromeSpan>& spans, const std::vector<ChromeInstant>& instants);

}  // namespace stoker::trace
