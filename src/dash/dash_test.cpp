#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "dash/run_log.h"
#include "dash/run_report.h"
#include "dash/terminal_plot.h"
#include "io/memory_file_system.h"

namespace stoker::dash {
namespace {

std::string step_line(int step, double loss) {
  return nlohmann::json{{"event", "step"},
                        {"step", step},
                        {"loss", loss},
                        {"lr", 1e-3},
                        {"grad_norm", 0.5},
                        {"tokens", 1000},
                        {"tokens_per_s", 500.0},
                        {"mfu", 0.7},
                        {"time_s", 2},
                        {"later", "key"},
                        {"anatomy", {{"forward", 0.4}, {"backward", 0.6}}}}
             .dump() +
         "\n";
}

TEST(RunLog, ReadsStepsEvaluationsAndMarks) {
  const RunLog log = parse_run_log(R"({"event":"start","model":"llama","parameters":12}
)" + step_line(1, 9.5) + R"({"event":"eval","step":1,"loss":9.0,"bits_per_byte":3.5}
{"event":"spike","step":1,"loss":99,"action":"skip"}
)" + step_line(2, 8.5),
                                   "log");
  ASSERT_EQ(log.steps.size(), 2u);
  EXPECT_EQ(log.steps[1].step, 2);
  EXPECT_DOUBLE_EQ(log.steps[1].loss, 8.5);
  EXPECT_DOUBLE_EQ(log.steps[0].tokens_per_s, 500);
  ASSERT_EQ(log.evals.size(), 1u);
  EXPECT_DOUBLE_EQ(log.evals[0].bits_per_byte, 3.5);
  ASSERT_EQ(log.marks.size(), 1u);
  EXPECT_EQ(log.marks[0].event, "spike");
  EXPECT_EQ(log.marks[0].text, "action skip, loss 99");
  ASSERT_EQ(log.facts.size(), 2u);
  EXPECT_EQ(log.facts[0], (std::pair<std::string, std::string>{"model", "llama"}));
  EXPECT_DOUBLE_EQ(log.anatomy.at("backward")[1], 0.6);
  EXPECT_EQ(log.rewinds, 0);
}

TEST(RunLog, LaterStepsReplaceWhatAResumeRepeats) {
  const std::string eval_2 = R"({"event":"eval","step":2,"loss":7})"
                             "\n";
  const RunLog log = parse_run_log(step_line(1, 9) + step_line(2, 8) + eval_2 + step_line(3, 7) +
                                       R"({"event":"resume","step":1})"
                                       "\n" +
                                       step_line(2, 6) + step_line(3, 5),
                                   "log");
  ASSERT_EQ(log.steps.size(), 3u);
  EXPECT_DOUBLE_EQ(log.steps[0].loss, 9);
  EXPECT_DOUBLE_EQ(log.steps[1].loss, 6);
  EXPECT_DOUBLE_EQ(log.steps[2].loss, 5);
  EXPECT_TRUE(log.evals.empty());
  EXPECT_EQ(log.rewinds, 1);
  EXPECT_EQ(log.anatomy.at("forward").size(), 3u);
}

TEST(RunLog, ATornLastLineIsNormalAndADamagedOneIsNamed) {
  EXPECT_EQ(parse_run_log(step_line(1, 9) + R"({"event":"st)", "log").steps.size(), 1u);
  try {
    (void)parse_run_log(step_line(1, 9) + "rubbish\n" + step_line(2, 9), "run/log.jsonl");
    FAIL() << "accepted a damaged line";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kData);
    EXPECT_NE(std::string(e.what()).find("run/log.jsonl, line 2"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("rubbish"), std::string::npos) << e.what();
  }
  EXPECT_THROW((void)parse_run_log("", "log"), Error);
  EXPECT_THROW((void)parse_run_log("{\"event\":\"eval\",\"step\":1}\n", "log"), Error);
}

TEST(RunLog, AbsentOrOddValuesAreAbsent) {
  const RunLog log = parse_run_log(R"({"event":"step","step":5,"loss":null,"lr":"high"})"
                                   "\n",
                                   "log");
  EXPECT_EQ(log.steps[0].step, 5);
  EXPECT_TRUE(std::isnan(log.steps[0].loss));
  EXPECT_TRUE(std::isnan(log.steps[0].lr));
  EXPECT_TRUE(std::isnan(log.steps[0].mfu));
}

TEST(TerminalPlot, DrawsTheDiagonalDotByDot) {
  // 2 x 2 cells hold 4 x 8 dots; the line from corner to corner passes (0,0) (1,2) (2,5) (3,7) and the dots
  // between.
  PlotFrame frame;
  frame.columns = 2, frame.rows = 2, frame.title = "t", frame.x_label = "s";
  const std::string text = plot_terminal({{"d", {0, 1}, {0, 1}, false}}, frame);
  EXPECT_EQ(text,
            "t\n"
            "        1 ┤ ⡜\n"
            "        0 ┤⡜\n"
            "          └──\n"
            "           0 1 s\n");
}

TEST(TerminalPlot, MarksSitOverLinesAndGapsStayOpen) {
  PlotFrame frame;
  frame.columns = 4, frame.rows = 2, frame.title = "t";
  const double nan = std::nan("");
  const std::string text =
      plot_terminal({{"a", {0, 1, 2, 3}, {1, nan, nan, 1}, false}, {"b", {0}, {0}, true}}, frame);
  EXPECT_NE(text.find("┤⠁  ⠈\n"), std::string::npos) << text;
  EXPECT_NE(text.find("┤o\n"), std::string::npos) << text;
  EXPECT_NE(plot_terminal({{"a", {1}, {nan}, false}}, frame).find("no finite value"), std::string::npos);
}

RunLog long_log(int steps) {
  std::string text;
  for (int i = 1; i <= steps; ++i) text += step_line(i, 10.0 - 5.0 * i / steps);
  text += R"({"event":"eval","step":1,"loss":9.0,"bits_per_byte":3.5})"
          "\n";
  text += R"({"event":"eval","step":2,"loss":5.5,"bits_per_byte":2.25})"
          "\n";
  text += R"({"event":"skip","step":2,"why":"</script><b>"})"
          "\n";
  return parse_run_log(text, "log");
}

TEST(RunReport, SummarizesTheRun) {
  const RunSummary s = summarize(long_log(100));
  EXPECT_EQ(s.steps, 100);
  EXPECT_NEAR(s.first_loss, 10 - 0.05 * 3, 1e-9);  // steps 1..5
  EXPECT_NEAR(s.last_loss, 10 - 0.05 * 98, 1e-9);  // steps 96..100
  EXPECT_DOUBLE_EQ(s.best_eval_loss, 5.5);
  EXPECT_EQ(s.best_eval_step, 2);
  EXPECT_DOUBLE_EQ(s.best_bits_per_byte, 2.25);
  EXPECT_DOUBLE_EQ(s.tokens, 100000);  // the same on every line: tokens of that step
  EXPECT_DOUBLE_EQ(s.median_tokens_per_s, 500);
  EXPECT_DOUBLE_EQ(s.time_s, 200);
}

nlohmann::json data_of(const std::string& page) {
  const std::string open = R"(<script type="application/json" id="data">)";
  const size_t begin = page.find(open) + open.size();
  return nlohmann::json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

TEST(RunReport, ThePageHoldsTheDataAndNothingEscapesIt) {
  const std::string page = report_html(long_log(100), "a <run>", "steps = 100 # </script>");
  EXPECT_NE(page.find("<title>a &lt;run&gt; - Stoker</title>"), std::string::npos);
  EXPECT_EQ(page.find("http://"), page.find("http://www.w3.org"));  // no address is fetched
  EXPECT_NE(page.find("Dygraph"), std::string::npos);
  const nlohmann::json data = data_of(page);
  EXPECT_EQ(data["steps"]["loss"].size(), 100u);
  EXPECT_DOUBLE_EQ(data["steps"]["loss"][99], 5.0);
  EXPECT_DOUBLE_EQ(data["steps"]["tokens"][99], 100000);
  EXPECT_EQ(data["evals"]["bits_per_byte"], nlohmann::json({3.5, 2.25}));
  EXPECT_EQ(data["marks"][0], nlohmann::json({"step 2", "skip", "why </script><b>"}));
  EXPECT_EQ(data["recipe"], "steps = 100 # </script>");
  EXPECT_EQ(page.find("</script><b>"), std::string::npos);
}

TEST(RunReport, LongRunsAreDrawnAsMeans) {
  const nlohmann::json data = data_of(report_html(long_log(10000), "long", ""));
  EXPECT_EQ(data["steps"]["loss"].size(), 4000u);
  EXPECT_NE(data["note"].get<std::string>().find("10000 steps, drawn as means of 4000"), std::string::npos);
  EXPECT_NEAR(data["steps"]["step"][0], 1.5, 1e-9);  // groups of two and three steps
}

TEST(RunReport, WritesThePageBesideTheLogAndAsksForALog) {
  io::MemoryFileSystem fs;
  fs.make_dirs("runs/one");
  EXPECT_THROW((void)write_run_report(fs, "runs/one"), Error);
  auto file = fs.create("runs/one/log.jsonl");
  file->append(step_line(1, 3.25));
  file->close();
  EXPECT_EQ(write_run_report(fs, "runs/one"), "runs/one/report.html");
  const std::string page = io::read_text(fs, "runs/one/report.html");
  EXPECT_NE(page.find("<title>one - Stoker</title>"), std::string::npos);
  const std::string text = report_terminal(read_run_log(fs, "runs/one"), "one", 60);
  EXPECT_NE(text.find("loss at the end          3.2500"), std::string::npos) << text;
}

}  // namespace
}  // namespace stoker::dash
