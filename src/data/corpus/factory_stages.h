// data/corpus/factory_stages.h
// What a stage does to one document, and what it remembers about it (its column).
//   transform   changes the text: unicode, c4_lines, pii
//   column      fixed-size rows about the text as it is at that place: language, quality, label, decontaminate, near,
//               and `hash` (content hash and length) for exact, near, lines and the end
// A StageContext holds what stages share (classifier, evaluation index, patterns); it never changes after load: any thread
// may use it
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "data/corpus/decontaminate_ngrams.h"
#include "data/corpus/factory_recipe.h"
#include "data/corpus/label_classifier.h"
#include "io/file_system.h"

namespace re2 {
class RE2;
}

namespace stoker::corpus {

struct HashRow {
  uint64_t high, low, bytes;
};
struct LanguageRow {
  char code[12];
  float share;
};
struct LabelRow {
  int32_t label;  // classifier: index; pattern: 0 matched, -1 not
  float probability;
};
struct ContaminationRow {
  uint32_t matched, item;
  float overlap;
};

bool is_transform(StageKind kind);

// A column that a stage needs: what to compute and under which name it is kept.
struct ColumnSpec {
  enum class What { kHash, kLanguage, kQuality, kPattern, kClassifier, kDecontaminate, kSignature } what;
  std::string key;  // part of the artifact's key
  size_t row_bytes = 0;
  size_t stage = 0;  // whose settings to use
};

class StageContext {
 public:
  StageContext(io::FileSystem& fs, const Recipe& recipe);
  ~StageContext();
  const Recipe& recipe() const { return recipe_; }
  // Columns that the stage reads, in a fixed order. The end of the pipeline: columns_at_end().
  std::vector<ColumnSpec> columns_of(size_t stage) const;
  static ColumnSpec hash_column();
  // compute_key of a transform stage.
  std::string transform_key(size_t stage) const;
  std::string apply(size_t stage, std::string text) const;
  // Appends one row.
  void compute(const ColumnSpec& column, std::string_view text, std::string& rows) const;

  const LabelClassifier* classifier(size_t stage) const { return shared_[stage].classifier.get(); }
  const DecontaminationIndex* evaluation(size_t stage) const { return shared_[stage].evaluation.get(); }
  // Of files the recipe names beside sources: part of the version.
  Hash128 inputs_hash() const { return inputs_; }

 private:
  struct Shared {
    std::unique_ptr<LabelClassifier> classifier;
    std::unique_ptr<DecontaminationIndex> evaluation;
    std::unique_ptr<re2::RE2> pattern;
    Hash128 inputs;
  };
  Recipe recipe_;
  std::vector<Shared> shared_;
  Hash128 inputs_;
};

}  // namespace stoker::corpus
