#include "plan/plan_report.h"

#include <nlohmann/json.hpp>

#include "base/embedded_file.h"
#include "base/error.h"
#include "io/atomic_write.h"
#include "plan/assessment_json.h"

namespace stoker::embedded {
std::span<const EmbeddedFile> plan_page();
std::span<const EmbeddedFile> chart_library();
}  // namespace stoker::embedded

namespace stoker::plan {
namespace {

void replace(std::string& page, std::string_view mark, std::string_view text) {
  const size_t at = page.find(mark);
  STOKER_CHECK(at != std::string::npos, "the page has no {}", mark);
  page.replace(at, mark.size(), text);
}

// JSON inside a script element must not close it.
std::string safe_in_script(std::string text) {
  for (size_t at = text.find("</"); at != std::string::npos; at = text.find("</", at + 3))
    text.replace(at, 2, "<\\/");
  for (size_t at = text.find("<!--"); at != std::string::npos; at = text.find("<!--", at + 8))
    text.replace(at, 4, "\\u003c!--");
  return text;
}

}  // namespace

std::string plan_report_html(const Assessment& a, const std::vector<Lever>& levers) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Lever& lever : levers) rows.push_back(to_json(lever));
  std::string page(embedded::plan_page().front().content);
  // The data first: the library is trusted not to hold the mark, a user's plan name is not.
  const std::string data = nlohmann::json{{"plan", to_json(a)}, {"levers", std::move(rows)}}.dump();
  const size_t at = page.find("/*PLAN_DATA*/");
  STOKER_CHECK(at != std::string::npos);
  std::string head = page.substr(0, at), tail = page.substr(at);
  replace(tail, "/*PLAN_DATA*/", safe_in_script(data));
  replace(head, "/*CHART_LIBRARY*/", embedded::chart_library().front().content);
  return head + tail;
}

void write_plan_report(io::FileSystem& fs, const Assessment& a, const std::vector<Lever>& levers,
                       const std::string& path) {
  io::write_file_atomic(fs, path, plan_report_html(a, levers));
}

}  // namespace stoker::plan
