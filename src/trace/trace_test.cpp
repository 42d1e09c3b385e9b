#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "trace/chrome.h"
#include "trace/span_log.h"

namespace stoker::trace {
namespace {

std::string scratch(const char* name) {
  return (std::filesystem::temp_directory_path() / fmt::format("stoker_trace_{}_{}", getpid(), name))
      .string();
}

TEST(SpanLog, SpansFollowOneAnotherAndSumUp) {
  const std::string path = scratch("sum");
  double all = 0;
  {
    SpanLog log(path);
    log.next("compute", 1);
    log.next("reduce", 1);
    log.next("compute", 2);
    for (const auto& [name, s] : log.totals()) all += s;
  }
  const auto spans = read_spans(path, "w0");
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[1].name, "reduce");
  EXPECT_EQ(spans[2].step, 2);
  for (size_t i = 1; i < spans.size(); ++i)  // no gap between them, but for rounding to microseconds
    EXPECT_NEAR(spans[i].start_unix_s, spans[i - 1].start_unix_s + spans[i - 1].seconds, 1e-3);
  EXPECT_GE(all, 0);
  std::filesystem::remove(path);
}

TEST(SpanLog, StaysBounded) {
  const std::string path = scratch("bound");
  {
    SpanLog log(path);
    for (int64_t i = 0; i < 400'000; ++i) log.next("compute", i);
  }
  EXPECT_LE(std::filesystem::file_size(path), static_cast<uintmax_t>(SpanLog::kMostBytes));
  EXPECT_TRUE(std::filesystem::exists(path + ".1"));
  std::filesystem::remove(path);
  std::filesystem::remove(path + ".1");
}

TEST(SpanLog, AFileThatCannotBeWrittenHarmsNobody) {
  SpanLog log("/nowhere/at/all");
  log.next("compute", 1);
  log.next("reduce", 1);
  EXPECT_EQ(log.totals().count("compute"), 1u);
}

TEST(Chrome, TornLinesAreLeftOut) {
  const std::string path = scratch("torn");
  std::ofstream(path) << "{\"name\":\"a\",\"step\":1,\"start\":5.0,\"s\":0.5}\n[1]\n{\"name\":3,\"start\":1,"
                         "\"s\":1}\n{\"name\":\"b\",\"st";
  EXPECT_EQ(read_spans(path, "w").size(), 1u);
  std::filesystem::remove(path);
}

// What the trace event format asks for, and what makes Perfetto drop events: missing phases, negative times, spans of one track
// that overlap without nesting.
TEST(Chrome, IsATraceThatViewersAccept) {
  const auto text =
      chrome_trace({{"w0", "phases", "compute", 100.0, 0.5, 1, ""},
                    {"w0", "phases", "reduce", 100.5, 0.25, 1, ""},
                    {"w0", "collectives", "tree_all_reduce", 100.5, 0.2, -1, "25 MB \"quoted\""},
                    {"w1", "phases", "compute", 100.1, 0.4, 1, ""}},
                   {{"coordinator", "ended", "rank 1 (w1) was ended by signal 9", 99.5}});
  const auto j = nlohmann::json::parse(text);
  std::map<int, std::string> names;
  std::set<std::pair<int, int>> tracks;
  int spans = 0;
  for (const auto& e : j.at("traceEvents")) {
    const std::string ph = e.at("ph");
    ASSERT_TRUE(ph == "X" || ph == "i" || ph == "M") << ph;
    ASSERT_TRUE(e.at("pid").is_number_integer() && e.at("tid").is_number_integer() &&
                e.at("name").is_string());
    if (ph == "M" && e["name"] == "process_name") names[e["pid"].get<int>()] = e["args"]["name"];
    if (ph == "M") continue;
    EXPECT_GE(e.at("ts").get<int64_t>(), 0);
    if (ph == "i") {
      EXPECT_EQ(e.at("s"), "g");
    }
    if (ph != "X") continue;
    EXPECT_GE(e.at("dur").get<int64_t>(), 0);
    tracks.emplace(e["pid"].get<int>(), e["tid"].get<int>());
    ++spans;
  }
  EXPECT_EQ(spans, 4);
  EXPECT_EQ(tracks.size(), 3u);
  std::set<std::string> found;
  for (const auto& [pid, name] : names) found.insert(name);
  EXPECT_EQ(found, (std::set<std::string>{"coordinator", "w0", "w1"}));
}

}  // namespace
}  // namespace stoker::trace
