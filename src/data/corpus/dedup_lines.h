// data/corpus/dedup_lines.h
// Exact repeats of lines or paragraphs across the whole corpus: each distinct span stays once, in the
// document that stays_before all others that hold it (and there at its first place), so the result does not
// depend on order. Span        a line, or a run of lines up to a blank one; compared after trimming ASCII
// blanks. Spans shorter than
//             min_characters (code points after trimming) always stay
// Memory      the spill budget, and 40 bytes per document (the keys) in a spill array; spans themselves are only hashed
//             (64 bits, so among 10^9 distinct spans about 0.03 are expected to be confused)
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus/dedup_documents.h"
#include "data/corpus/dedup_spill.h"

namespace stoker::corpus {

enum class SpanKind { kLine, kParagraph };

struct LineDedupOptions {
  SpanKind kind = SpanKind::kLine;
  int min_characters = 20;
  // Spans found in fewer documents than this stay everywhere.
  int min_documents = 2;
  SpillBudget spill;
};

// The byte ranges [begin, end) of the spans of text, terminators excluded, in order.
struct Span {
  size_t begin, end;
};
std::vector<Span> split_spans(std::string_view text, SpanKind kind);

// text without the spans numbered in `drop` (sorted) and without their terminators.
std::string remove_spans(std::string_view text, SpanKind kind, std::span<const uint32_t> drop);

class LineDeduplicator {
 public:
  explicit LineDeduplicator(LineDedupOptions options);
  void add(const DocumentKey& key, std::string_view text);
  // Calls each(document, spans to drop, sorted) once for every document that loses any, in the order added. Once.
  void finish(const std::function<void(uint32_t document, std::span<const uint32_t> drop)>& each);

 private:
  struct Record {
    uint64_t hash;
    uint32_t document, span;
  };
  struct Drop {
    uint32_t document, span;
  };
  LineDedupOptions options_;
  SpillArray<DocumentKey> documents_;
  SpillTable<Record> spans_;
};

}  // namespace stoker::corpus
