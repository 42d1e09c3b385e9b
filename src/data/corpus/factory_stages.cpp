#include "data/corpus/factory_stages.h"

#include <re2/re2.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/corpus/compressed_input.h"
#include "data/corpus/factory_artifacts.h"
#include "data/corpus/factory_records.h"
#include "data/corpus/language_identify.h"

namespace stoker::corpus {
namespace {

template <typename T>
void put_row(std::string& rows, const T& row) {
  rows.append(reinterpret_cast<const char*>(&row), sizeof row);
}

// An evaluation set: JSON lines (every string value of an object, put together, is the item) or plain lines.
Hash128 load_evaluation(io::FileSystem& fs, const std::string& path, DecontaminationIndex& index) {
  CompressedInput input(fs, path);
  Hasher hasher;
  ByteReader reader([&](char* to, size_t bytes) {
    const size_t got = input.read(to, bytes);
    hasher.update(to, got);
    return got;
  });
  std::string line;
  bool too_long = false;
  uint64_t number = 0;
  while (reader.line(line, uint64_t{16} << 20, too_long)) {
    ++number;
    if (too_long) fail(ErrorKind::kData, "{}:{}: an evaluation item longer than 16 MiB", path, number);
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    std::string text;
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object()) {
      for (const auto& [key, value] : json.items())
        if (value.is_string()) text += value.get<std::string>() + "\n";
    } else {
      text = line;
    }
    index.add(fmt::format("{}:{}", io::name_of(path), number), text);
  }
  if (!reader.failure().empty()) fail(ErrorKind::kData, "{}: {}", path, reader.failure());
  return hasher.digest();
}

}  // namespace

bool is_transform(StageKind kind) {
  return kind == StageKind::kUnicode || kind == StageKind::kC4Lines || kind == StageKind::kPii;
}

StageContext::StageContext(io::FileSystem& fs, const Recipe& recipe) : recipe_(recipe) {
  KeyBuilder all("inputs");
  for (const auto& stage : recipe_.stages) {
    Shared shared;
    if (!stage.pattern.empty()) {
      re2::RE2::Options quiet;
      quiet.set_log_errors(false);
      shared.pattern = std::make_unique<re2::RE2>(stage.pattern, quiet);
      if (!shared.pattern->ok())
        fail(ErrorKind::kUsage, "label '{}': pattern '{}' is no regular expression: {}", stage.label,
             stage.pattern, shared.pattern->error());
    }
    if (!stage.classifier.empty()) {
      const std::string bytes = io::read_text(fs, stage.classifier, uint64_t{4} << 30);
      shared.classifier = std::make_unique<LabelClassifier>(LabelClassifier::parse(bytes, stage.classifier));
      shared.inputs = hash128(bytes);
    }
    if (!stage.sets.empty()) {
      shared.evaluation = std::make_unique<DecontaminationIndex>(stage.n);
      KeyBuilder sets("sets");
      for (const auto& set : stage.sets) sets.add(load_evaluation(fs, set, *shared.evaluation));
      shared.inputs = sets.key();
    }
    all.add(shared.inputs);
    shared_.push_back(std::move(shared));
  }
  inputs_ = all.key();
}

StageContext::~StageContext() = default;

ColumnSpec StageContext::hash_column() { return {ColumnSpec::What::kHash, "hash/1", sizeof(HashRow), 0}; }

std::vector<ColumnSpec> StageContext::columns_of(size_t stage) const {
  const StageRecipe& s = recipe_.stages[stage];
  using What = ColumnSpec::What;
  const ColumnSpec quality{What::kQuality, "quality/1", sizeof(Signals), stage};
  switch (s.kind) {
    case StageKind::kLanguage:
      return {{What::kLanguage, s.compute_key(), sizeof(LanguageRow), stage}};
    case StageKind::kQuality:
      return {quality};
    case StageKind::kLabel:
      if (!s.when.empty()) return {quality};
      if (!s.pattern.empty()) return {{What::kPattern, s.compute_key(), sizeof(LabelRow), stage}};
      return {{What::kClassifier, s.compute_key() + shared_[stage].inputs.hex(), sizeof(LabelRow), stage}};
    case StageKind::kDecontaminate:
      return {{What::kDecontaminate, s.compute_key() + shared_[stage].inputs.hex(), sizeof(ContaminationRow),
               stage}};
    case StageKind::kExact:
    case StageKind::kLines:
      return {hash_column()};
    case StageKind::kNear:
      return {hash_column(),
              {What::kSignature, s.compute_key(),
               sizeof(uint32_t) * (1 + static_cast<size_t>(s.minhash.entries())), stage}};
    default:
      return {};
  }
}

std::string StageContext::transform_key(size_t stage) const { return recipe_.stages[stage].compute_key(); }

std::string StageContext::apply(size_t stage, std::string text) const {
  const StageRecipe& s = recipe_.stages[stage];
  switch (s.kind) {
    case StageKind::kUnicode:
      return repair_unicode(text, s.unicode).text;
    case StageKind::kC4Lines:
      return c4_lines(text, s.terminal_punctuation);
    case StageKind::kPii:
      return redact_pii(text, s.pii).text;
    default:
      return text;
  }
}

void StageContext::compute(const ColumnSpec& column, std::string_view text, std::string& rows) const {
  const StageRecipe* s = column.stage < recipe_.stages.size() ? &recipe_.stages[column.stage] : nullptr;
  switch (column.what) {
    case ColumnSpec::What::kHash: {
      const Hash128 hash = hash128(text);
      return put_row(rows, HashRow{hash.high, hash.low, text.size()});
    }
    case ColumnSpec::What::kLanguage: {
      const Language language = identify_language(text);
      LanguageRow row{};
      std::memcpy(row.code, language.code.data(), std::min(language.code.size(), sizeof row.code - 1));
      row.share = language.reliable ? language.share : language.share / 2;
      return put_row(rows, row);
    }
    case ColumnSpec::What::kQuality:
      return put_row(rows, measure_quality(text));
    case ColumnSpec::What::kPattern: {
      const bool found =
          re2::RE2::PartialMatch(re2::StringPiece(text.data(), text.size()), *shared_[column.stage].pattern);
      return put_row(rows, LabelRow{found ? 0 : -1, found ? 1.0f : 0.0f});
    }
    case ColumnSpec::What::kClassifier: {
      const LabelScore score = shared_[column.stage].classifier->predict(text);
      return put_row(rows, LabelRow{score.label, score.probability});
    }
    case ColumnSpec::What::kDecontaminate: {
      const Contamination c = shared_[column.stage].evaluation->check(text);
      return put_row(rows, ContaminationRow{c.matched, c.item, c.overlap});
    }
    case ColumnSpec::What::kSignature: {
      static thread_local std::unique_ptr<SignatureMaker> maker;
      static thread_local std::string made_for;
      if (!maker || made_for != column.key) {
        maker = std::make_unique<SignatureMaker>(s->minhash);
        made_for = column.key;
      }
      const auto signature = maker->sign(text);
      put_row(rows, static_cast<uint32_t>(signature.has_value()));
      if (signature)
        rows.append(reinterpret_cast<const char*>(signature->data()), signature->size() * sizeof(uint32_t));
      else rows.append(sizeof(uint32_t) * static_cast<size_t>(s->minhash.entries()), '\0');
      return;
    }
  }
}

}  // namespace stoker::corpus
