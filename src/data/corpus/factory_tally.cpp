#include "data/corpus/factory_tally.h"

#include <algorithm>
#include <map>

#include "base/hash.h"
#include "data/corpus/unicode_encoding.h"

namespace stoker::corpus {
namespace {

using OrderedJson = nlohmann::ordered_json;
constexpr size_t kSamples = 3, kExcerpt = 400;

std::string excerpt(std::string_view text) {
  std::string out(text.substr(0, kExcerpt));
  while (!out.empty() && (out.back() & 0xC0) == 0x80) out.pop_back();
  if (!out.empty() && (out.back() & 0x80)) out.pop_back();
  return out;
}

bool before(const Sample& a, const Sample& b) {
  return a.order != b.order ? a.order < b.order : a.document < b.document;
}

}  // namespace

std::string document_id(const Recipe& recipe, const Corpus& corpus, uint32_t document) {
  const auto& d = corpus.documents[document];
  const InputFile& file = *corpus.files[d.file];
  std::string id = fmt::format("{}/{}#{}", recipe.sources[file.source].name, file.name, d.record);
  // File names need not be UTF-8, JSON must be.
  return valid_utf8_prefix(id) == id.size() ? id : decode_to_utf8(id, {"UTF-8", "declared"}).text;
}

CorpusTally::CorpusTally(const Recipe& recipe, const Corpus& corpus)
    : recipe_(recipe),
      corpus_(corpus),
      sources_(recipe.sources.size()),
      labels_(corpus.labels.size()),
      languages_(corpus.languages.size()),
      reasons_(corpus.reasons.size()),
      samples_(corpus.reasons.size()) {}

Sample CorpusTally::sample(uint32_t document, std::string_view text) const {
  return {hash64(text, corpus_.documents[document].record + 1), document, excerpt(text)};
}

void CorpusTally::keep_candidates(std::vector<Sample>& of_chunk) const {
  std::sort(of_chunk.begin(), of_chunk.end(), [&](const Sample& a, const Sample& b) {
    const uint32_t x = reason_of(a), y = reason_of(b);
    return x != y ? x < y : before(a, b);
  });
  std::map<uint32_t, size_t> seen;
  std::erase_if(of_chunk, [&](const Sample& s) { return ++seen[reason_of(s)] > kSamples; });
}

void CorpusTally::kept(uint32_t document, uint64_t text_bytes, uint64_t tokens) {
  const auto& d = corpus_.documents[document];
  sources_[corpus_.files[d.file]->source].add(text_bytes, tokens, d.copies);
  languages_[d.language].add(text_bytes, tokens, d.copies);
  for (size_t l = 0; l < labels_.size(); ++l)
    if (d.labels >> l & 1) labels_[l].add(text_bytes, tokens, d.copies);
}

void CorpusTally::dropped(uint32_t document, uint64_t text_bytes) {
  reasons_[corpus_.documents[document].reason].add(text_bytes, 0, 1);
}

void CorpusTally::add_samples(std::vector<Sample> candidates) {
  for (auto& s : candidates) {
    auto& best = samples_[reason_of(s)];
    best.push_back(std::move(s));
    std::sort(best.begin(), best.end(), before);
    if (best.size() > kSamples) best.pop_back();
  }
}

// ---- the report

OrderedJson CorpusTally::report(const BuildResult& result) const {
  OrderedJson r{{"format", "stoker-data-report"},
                {"name", recipe_.name},
                {"version", result.version},
                {"files", result.files},
                {"left_out", result.left_out},
                {"documents_in", result.documents_in},
                {"documents_out", result.documents_out},
                {"quarantined", result.quarantined},
                {"text_bytes_in", result.text_bytes_in},
                {"text_bytes_out", result.text_bytes_out},
                {"tokens", result.tokens},
                {"spans_removed", corpus_.spans_removed}};
  OrderedJson stages = OrderedJson::array();
  for (const auto& stage : recipe_.stages) stages.push_back(std::string(to_string(stage.kind)));
  r["stages"] = stages;
  r["reasons"] = report_reasons();
  report_sources(r);
  r["signals"] = report_signals();
  return r;
}

OrderedJson CorpusTally::report_reasons() const {
  std::vector<size_t> order;
  for (size_t i = 1; i < reasons_.size(); ++i)
    if (reasons_[i].documents) order.push_back(i);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reasons_[a].documents != reasons_[b].documents ? reasons_[a].documents > reasons_[b].documents
                                                          : corpus_.reasons[a] < corpus_.reasons[b];
  });
  OrderedJson out = OrderedJson::array();
  for (const size_t i : order) {
    OrderedJson samples = OrderedJson::array();
    for (const auto& s : samples_[i]) {
      const auto& document = corpus_.documents[s.document];
      OrderedJson sample{{"id", document_id(recipe_, corpus_, s.document)}, {"text", s.text}};
      if (document.kept_instead != kNoDocument) {
        sample["matched"] = document_id(recipe_, corpus_, document.matched);
        sample["similarity"] = document.similarity;
      }
      samples.push_back(std::move(sample));
    }
    out.push_back({{"reason", corpus_.reasons[i]},
                   {"documents", reasons_[i].documents},
                   {"bytes", reasons_[i].text_bytes},
                   {"samples", samples}});
  }
  return out;
}

OrderedJson CorpusTally::counted(const std::vector<std::string>& names, const std::vector<Counted>& counts) {
  OrderedJson out = OrderedJson::array();
  for (size_t i = 0; i < counts.size(); ++i)
    if (counts[i].documents && !names[i].empty())
      out.push_back({{"name", names[i]},
                     {"documents", counts[i].documents},
                     {"text_bytes", counts[i].text_bytes},
                     {"tokens", counts[i].tokens}});
  return out;
}

void CorpusTally::report_sources(OrderedJson& report) const {
  std::vector<uint64_t> in(recipe_.sources.size());
  std::map<std::pair<uint32_t, uint32_t>, uint64_t> pairs;
  for (const auto& d : corpus_.documents) {
    const uint32_t source = corpus_.files[d.file]->source;
    ++in[source];
    if (d.kept_instead != kNoDocument)
      ++pairs[{source, corpus_.files[corpus_.documents[d.kept_instead].file]->source}];
  }
  report["sources"] = OrderedJson::array();
  for (size_t s = 0; s < sources_.size(); ++s)
    report["sources"].push_back({{"name", recipe_.sources[s].name},
                                 {"documents_in", in[s]},
                                 {"documents_out", sources_[s].documents},
                                 {"text_bytes_out", sources_[s].text_bytes},
                                 {"tokens", sources_[s].tokens}});
  report["labels"] = counted(corpus_.labels, labels_);
  report["languages"] = counted(corpus_.languages, languages_);
  report["duplicates"] = OrderedJson::array();
  for (const auto& [pair, count] : pairs)
    report["duplicates"].push_back({{"dropped", recipe_.sources[pair.first].name},
                                    {"kept", recipe_.sources[pair.second].name},
                                    {"documents", count}});
}

OrderedJson CorpusTally::report_signals() const {
  OrderedJson out = OrderedJson::array();
  for (const auto& [signal, h] : corpus_.histograms) {
    const auto bins = histogram_bins(signal);
    const auto used = static_cast<std::ptrdiff_t>(bins.size());
    out.push_back({{"signal", std::string(signal_name(signal))},
                   {"bins", bins},
                   {"all", std::vector<uint64_t>(h.all.begin(), h.all.begin() + used)},
                   {"dropped", std::vector<uint64_t>(h.dropped.begin(), h.dropped.begin() + used)}});
  }
  return out;
}

}  // namespace stoker::corpus
