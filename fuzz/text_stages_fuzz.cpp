// Every stage that takes text: any bytes in, valid UTF-8 and finite numbers out.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "data/corpus/decontaminate_ngrams.h"
#include "data/corpus/dedup_lines.h"
#include "data/corpus/language_identify.h"
#include "data/corpus/minhash_shingles.h"
#include "data/corpus/pii_redact.h"
#include "data/corpus/quality_rules.h"
#include "data/corpus/unicode_encoding.h"
#include "data/corpus/unicode_repair.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stoker::corpus;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)shingle_set(bytes, ShingleUnit::kWord, 5);  // takes bytes that are not UTF-8 too
  (void)shingle_set(bytes, ShingleUnit::kCharacter, 24);
  (void)identify_language(bytes);
  for (const float value : measure_quality(bytes)) STOKER_CHECK(std::isfinite(value));
  const std::string text = repair_unicode(bytes).text;
  STOKER_CHECK(valid_utf8_prefix(text) == text.size());
  (void)identify_language(text);
  const auto redacted = redact_pii(text);
  STOKER_CHECK(valid_utf8_prefix(redacted.text) == redacted.text.size());
  (void)c4_lines(text, true);
  DecontaminationIndex index(5);
  index.add("item", text.substr(0, text.size() / 2));
  (void)index.check(text);
  for (const auto kind : {SpanKind::kLine, SpanKind::kParagraph}) {
    STOKER_CHECK(remove_spans(text, kind, {}) == text);
    for (const auto& span : split_spans(text, kind))
      STOKER_CHECK(span.begin <= span.end && span.end <= text.size());
  }
  return 0;
}
