// data/corpus/factory_recipe.h
// What a recipe.toml says; docs/data-factory.md describes every key.
//   name, output, work, memory_mb, threads, chunk_mb
//   [[source]] name paths format text_field priority weight label max_document_mb
//   stages = [ {use = "unicode"}, {use = "language", keep = ["en"]}, ... ]     in the order they run
//   [shards] tokenizer validation max_tokens; [pack] length        both optional
// Errors  Usage: an unknown key, stage or value names the place in the file and what is known there
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus/dedup_lines.h"
#include "data/corpus/minhash_signature.h"
#include "data/corpus/pii_redact.h"
#include "data/corpus/quality_rules.h"
#include "data/corpus/unicode_repair.h"

namespace stoker::corpus {

struct SourceRecipe {
  std::string name;
  std::vector<std::string> paths;  // files, folders, globs
  std::string format = "auto";
  std::string text_field = "text";
  std::string label;
  float priority = 0;  // which copy of a duplicate stays: greater first
  double weight = 1;   // copies in the output; 0.5: every second document, by content hash
  uint64_t max_document_bytes = uint64_t{64} << 20;
  bool main_content = true;  // of HTML
};

enum class StageKind {
  kUnicode,
  kC4Lines,
  kPii,
  kLanguage,
  kQuality,
  kLabel,
  kDecontaminate,
  kExact,
  kNear,
  kLines
};
std::string_view to_string(StageKind kind);

struct StageRecipe {
  StageKind kind;
  UnicodeOptions unicode;
  bool terminal_punctuation = false;  // c4_lines
  PiiOptions pii;
  // language
  std::vector<std::string> keep_languages;  // empty: only recorded
  float min_share = 0;
  // quality
  std::vector<std::string> rule_sets;
  std::vector<QualityRule> bounds;        // as the recipe says them
  std::vector<QualityRule> rules;         // of the sets, with `bounds` put over them
  std::vector<std::string> rule_reasons;  // "gopher_quality: words outside 50..100000"
  // label
  std::string label;
  std::string pattern;            // RE2 on the text
  std::string classifier;         // a file
  std::vector<QualityRule> when;  // on signals
  bool drop = false;              // documents with this label (pattern, when) are dropped
  float min_probability = 0.5f;
  // decontaminate
  std::vector<std::string> sets;
  int n = 13;
  float max_overlap = 0.5f;
  // exact, near, lines
  MinHashParameters minhash;
  double min_similarity = 0;
  bool prefer_longest = false;
  SpanKind span = SpanKind::kLine;
  int min_characters = 20, min_documents = 2;

  // Canonical words for what the stage computes (without thresholds), and for all of it.
  std::string compute_key() const;
  std::string full_key() const;
  // All of it by the recipe's keys, defaults too, as JSON.
  std::string settings() const;
};

struct Recipe {
  std::string name, output, work;
  uint64_t memory_bytes = uint64_t{512} << 20;
  uint64_t chunk_bytes = uint64_t{4} << 20;
  int threads = 0;
  std::vector<SourceRecipe> sources;
  std::vector<StageRecipe> stages;
  // shards
  std::string tokenizer;  // empty: JSON lines only
  double validation = 0;  // share of documents, by content hash
  uint64_t shard_tokens = uint64_t{1} << 28;
  uint64_t pack_length = 0;  // 0: no packing plan
};

// Relative paths in it are relative to `directory`.
Recipe parse_recipe(std::string_view toml, std::string_view file, const std::string& directory);

}  // namespace stoker::corpus
