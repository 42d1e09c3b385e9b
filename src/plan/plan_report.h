// plan/plan_report.h
// A plan as one self-contained HTML page: the screen's numbers, charts of the step, the money and the time to
// finish, the levers and every cost line with its source. Opens without a network; the chart library
// (Chart.js, MIT licence, from Debian's libjs-chart.js) is inside it. Errors   Storage: the file cannot be
// written; nothing half-written is left
#pragma once
#include <string>
#include <vector>

#include "io/file_system.h"
#include "plan/assess.h"
#include "plan/levers.h"

namespace stoker::plan {

std::string plan_report_html(const Assessment& assessment, const std::vector<Lever>& levers);
void write_plan_report(io::FileSystem& fs, const Assessment& assessment, const std::vector<Lever>& levers,
                       const std::string& path);

}  // namespace stoker::plan
