// Measures the cleaning of text on a directory of files; every figure is of one thread, input in memory.
//   corpus_bench signatures DIR...   MB/s of MinHash signatures per parameter set and instruction set
//   corpus_bench extract DIR...      MB/s of HTML extraction, and {"path","text"} lines on standard output
//   corpus_bench thin DIR...         extraction with and without the pass before the parser: speed, pages that differ
//   corpus_bench stages DIR...       MB/s of each stage of a build on the texts
//   corpus_bench accuracy DIR...     precision and recall of the bands against exact Jaccard similarity
// Files ending .gz are unpacked, .html are extracted, the rest is taken as text.
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "data/corpus/dedup_accuracy.h"
#include "data/corpus/html_extract.h"
#include "data/corpus/language_identify.h"
#include "data/corpus/minhash_kernel.h"
#include "data/corpus/minhash_signature.h"
#include "data/corpus/pii_redact.h"
#include "data/corpus/quality_rules.h"
#include "data/corpus/quality_signals.h"
#include "data/corpus/unicode_encoding.h"
#include "data/corpus/unicode_repair.h"

namespace {

using namespace stoker;
using namespace stoker::corpus;

struct File {
  std::string path, text;
};

std::string read_file(const std::string& path) {
  gzFile in = gzopen(path.c_str(), "rb");  // reads plain files too
  if (!in) fail(ErrorKind::kUsage, "cannot open {}", path);
  std::string text;
  std::vector<char> block(1 << 16);
  int got;
  while ((got = gzread(in, block.data(), static_cast<unsigned>(block.size()))) > 0)
    text.append(block.data(), got);
  gzclose(in);
  if (got < 0) fail(ErrorKind::kData, "cannot unpack {}", path);
  return text;
}

std::vector<File> read_all(int count, char** roots) {
  std::vector<std::string> paths;
  for (int i = 0; i < count; ++i)
    for (const auto& entry : std::filesystem::recursive_directory_iterator(roots[i]))
      if (entry.is_regular_file()) paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  std::vector<File> files;
  for (const auto& path : paths) files.push_back({path, read_file(path)});
  return files;
}

bool is_html(const std::string& path) { return path.ends_with(".html") || path.ends_with(".htm"); }

std::string plain_text(const File& file) {
  if (!is_html(file.path)) return decode_to_utf8(file.text, detect_encoding(file.text, "", false)).text;
  const auto decoded = decode_to_utf8(file.text, detect_encoding(file.text, "", true));
  auto page = extract_html(decoded.text);
  return page.ok() ? page.value().text : "";
}

double megabytes(const std::vector<std::string>& texts) {
  size_t bytes = 0;
  for (const auto& text : texts) bytes += text.size();
  return static_cast<double>(bytes) / 1e6;
}

// Median of three rounds over all texts, in MB/s.
template <typename Each>
void time_stage(const char* name, const std::vector<std::string>& texts, Each&& each) {
  std::vector<double> seconds;
  for (int round = 0; round < 3; ++round) {
    const double start = monotonic_s();
    for (const auto& text : texts) each(text);
    seconds.push_back(monotonic_s() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  std::printf("%-22s %9.1f MB/s\n", name, megabytes(texts) / seconds[1]);
}

void stages(const std::vector<std::string>& texts) {
  std::printf("%zu texts, %.1f MB, one thread, median of 3\n", texts.size(), megabytes(texts));
  uint64_t sink = 0;
  SignatureMaker maker(minhash_preset("fineweb"));
  time_stage("unicode", texts, [&](const std::string& t) { sink += repair_unicode(t).text.size(); });
  time_stage("language", texts, [&](const std::string& t) { sink += identify_language(t).code.size(); });
  time_stage("quality (39 signals)", texts,
             [&](const std::string& t) { sink += static_cast<uint64_t>(measure_quality(t)[kWords]); });
  time_stage("c4_lines", texts, [&](const std::string& t) { sink += c4_lines(t, false).size(); });
  time_stage("near (fineweb)", texts, [&](const std::string& t) { sink += maker.sign(t).has_value(); });
  time_stage("pii", texts, [&](const std::string& t) { sink += redact_pii(t).text.size(); });
  time_stage("hash", texts, [&](const std::string& t) { sink += hash128(t).low & 1; });
  std::fprintf(stderr, "%lu\n", static_cast<unsigned long>(sink));
}

void thin(const std::vector<File>& files) {
  std::vector<std::string> pages;
  for (const auto& file : files)
    if (is_html(file.path))
      pages.push_back(decode_to_utf8(file.text, detect_encoding(file.text, "", true)).text);
  double seconds[2] = {}, mb = 0;
  size_t differ = 0;
  for (const auto& page : pages) {
    mb += static_cast<double>(page.size()) / 1e6;
    std::string text[2];
    for (int thinned = 0; thinned < 2; ++thinned) {
      HtmlOptions options;
      options.thin = thinned;
      const double start = monotonic_s();
      auto found = extract_html(page, options);
      seconds[thinned] += monotonic_s() - start;
      text[thinned] = found.ok() ? found.value().text : found.error().what();
    }
    if (text[0] == text[1]) continue;
    if (++differ > 3) continue;
    size_t at = 0;
    while (at < text[0].size() && at < text[1].size() && text[0][at] == text[1][at]) ++at;
    at = at > 60 ? at - 60 : 0;
    std::printf("differs:\n--- %s\n+++ %s\n", text[0].substr(std::min(at, text[0].size()), 160).c_str(),
                text[1].substr(std::min(at, text[1].size()), 160).c_str());
  }
  std::printf("%zu pages, %.1f MB: %.1f MB/s as they are, %.1f MB/s thinned first; %zu pages differ\n",
              pages.size(), mb, mb / seconds[0], mb / seconds[1], differ);
}

void signatures(const std::vector<std::string>& texts) {
  const double mb = megabytes(texts);
  std::printf("%zu texts, %.1f MB\n%-12s %7s %10s %12s\n", texts.size(), mb, "set", "entries", "MB/s",
              "texts/s");
  for (const auto& name : minhash_preset_names()) {
    if (name == "refinedweb" && mb > 20) continue;  // 9,000 entries: minutes
    SignatureMaker maker(minhash_preset(name));
    double best = 1e9;
    for (int round = 0; round < 3; ++round) {
      const double start = monotonic_s();
      for (const auto& text : texts) maker.sign(text);
      best = std::min(best, monotonic_s() - start);
    }
    std::printf("%-12s %7d %10.0f %12.0f\n", name.c_str(), maker.parameters().entries(), mb / best,
                static_cast<double>(texts.size()) / best);
  }
  double best = 1e9;
  for (int round = 0; round < 3; ++round) {
    const double start = monotonic_s();
    for (const auto& text : texts)
      for_each_shingle_block(text, ShingleUnit::kWord, 5, [](std::span<const uint64_t>) {});
    best = std::min(best, monotonic_s() - start);
  }
  std::printf("%-12s %7s %10.0f   (folding and shingles alone)\n", "-", "-", mb / best);
}

void accuracy(const std::vector<std::string>& texts) {
  std::vector<std::vector<uint64_t>> sets;
  for (const auto& text : texts) sets.push_back(shingle_set(text, ShingleUnit::kWord, 5));
  const double start = monotonic_s();
  const auto truth = exact_similar_pairs(sets, 0.5);
  std::printf("%zu texts, %zu pairs with exact Jaccard >= 0.5 (all pairs compared, %.1f s)\n", texts.size(),
              truth.size(), monotonic_s() - start);
  size_t identical = 0;
  for (const auto& pair : truth) identical += pair.similarity == 1;
  std::printf("of them %zu with similarity 1\n", identical);
  std::vector<SimilarPair> graded;
  for (const auto& pair : truth)
    if (pair.similarity < 1) graded.push_back(pair);
  auto show = [&](const char* what, const MinHashParameters& p, const std::vector<SimilarPair>& found,
                  double threshold, double floor) {
    const auto a = measure_pairs(truth, found, threshold, floor, p);
    uint64_t graded_right = 0, graded_true = 0;
    for (const auto& pair : graded) graded_true += pair.similarity >= threshold;
    std::vector<SimilarPair> found_graded;
    std::set_difference(found.begin(), found.end(), truth.begin(), truth.end(),
                        std::back_inserter(found_graded),
                        [](const auto& x, const auto& y) { return x.a != y.a ? x.a < y.a : x.b < y.b; });
    const auto g = measure_pairs(graded, found, threshold, floor, p);
    graded_right = g.right_pairs;
    std::printf("%-26s %2dx%-3d %.1f %6.2f %9lu %9lu %9.4f %8.4f %8.4f %10.4f\n", what, p.bands, p.rows,
                threshold, floor, static_cast<unsigned long>(a.true_pairs),
                static_cast<unsigned long>(a.found_pairs), a.precision(), a.recall(), a.expected_recall,
                graded_true ? static_cast<double>(graded_right) / static_cast<double>(graded_true) : 1.0);
  };
  std::printf("%-26s %-6s %s %6s %9s %9s %9s %8s %8s %10s\n", "parameters", "b x r", "at", "floor", "true",
              "found", "precision", "recall", "expected", "recall<1");
  auto sign_all = [&](const MinHashParameters& p) {
    SignatureMaker maker(p);
    std::vector<Signature> out;
    for (const auto& text : texts) out.push_back(maker.sign(text).value_or(Signature()));
    return out;
  };
  const auto fineweb = minhash_preset("fineweb");
  const auto found = banded_pairs(sign_all(fineweb), fineweb);
  for (const double t : {0.5, 0.6, 0.7, 0.8, 0.9}) show("fineweb, bands only", fineweb, found, t, 0);
  for (const double t : {0.5, 0.6, 0.7, 0.8, 0.9}) show("fineweb, estimate >= t", fineweb, found, t, t);
  for (const double t : {0.5, 0.6, 0.7, 0.8, 0.9}) {
    // Bands for a threshold somewhat below, then the estimate decides: recall from the bands, precision from
    // it.
    const auto p = optimal_bands(256, t * 0.85);
    const auto own = banded_pairs(sign_all(p), p);
    show("256 for t, estimate >= t", p, own, t, t);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string what = argc > 1 ? argv[1] : "";
  if (argc < 3 ||
      (what != "signatures" && what != "extract" && what != "accuracy" && what != "thin" && what != "stages"))
    fail(ErrorKind::kUsage, "usage: corpus_bench signatures|extract|thin|stages|accuracy DIR...");
  const auto files = read_all(argc - 2, argv + 2);
  if (what == "thin") {
    thin(files);
    return 0;
  }
  if (what == "extract") {
    double bytes = 0;
    std::vector<std::string> texts;
    const double start = monotonic_s();
    for (const auto& file : files) {
      bytes += static_cast<double>(file.text.size());
      texts.push_back(plain_text(file));
    }
    const double seconds = monotonic_s() - start;
    std::fprintf(stderr, "%zu files, %.1f MB in %.2f s: %.1f MB/s, %.1f MB of text\n", files.size(),
                 bytes / 1e6, seconds, bytes / 1e6 / seconds, megabytes(texts));
    for (size_t i = 0; i < files.size(); ++i) {
      std::string json = "{\"path\":\"" + files[i].path + "\",\"text\":\"";
      for (const char c : texts[i]) {
        if (c == '"' || c == '\\') json += '\\';
        if (static_cast<unsigned char>(c) < 0x20) json += fmt::format("\\u{:04x}", static_cast<int>(c));
        else json += c;
      }
      std::puts((json + "\"}").c_str());
    }
    return 0;
  }
  std::vector<std::string> texts;
  for (const auto& file : files)
    if (auto text = plain_text(file); text.find('\0') == text.npos)
      texts.push_back(std::move(text));  // as a build
  if (what == "signatures") signatures(texts);
  else if (what == "stages") stages(texts);
  else accuracy(texts);
} catch (const Error& e) {
  std::fprintf(stderr, "corpus_bench: %s\n", e.what());
  return exit_code(e.kind());
}
