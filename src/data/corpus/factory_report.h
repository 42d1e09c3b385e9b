// data/corpus/factory_report.h
// report.json of a build -> one self-contained HTML page: counts, drop reasons, histograms, duplicates by source, samples
// of every reason, tokens per label. No scripts, nothing fetched.
// Errors  Data: the JSON is not a build's report
#pragma once
#include <string>
#include <string_view>

namespace stoker::corpus {

std::string report_page(std::string_view report_json);

}  // namespace stoker::corpus
